"""The section on the critical batch size as the plain values that the page shows."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fedbatch.batch.noiseless import noiseless_sums
from fedbatch.batch.one_run import ToLoss
from fedbatch.results.critical import Critical, critical
from fedbatch.results.critical_rows import read
from fedbatch.results.critical_table import is_own, ladder, sentences, ways

POINTS = 40
"""Of a curve over batches."""
PLACES = 24
"""Along a run, at which its sums are told."""


def critical_values(folder: Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Numbers, curves, sentences and doubts of one run; or the reason why there are none."""
    try:
        found = critical(folder, trust=trust)
    except Exception as error:  # it calls a time model of one's own, and must not cost the page
        return {"reason": (str(error).splitlines() or [type(error).__name__])[0].removeprefix(f"{folder}: ")}
    batches = ladder(found)
    return {
        "loss": found.loss,
        "unit": found.unit,
        "goals": [_goal(found, goal, batches) for goal in found.goals],
        "costs": [_cost(found, batch) for batch in batches],
        "sentences": list(sentences(found)),
        "doubts": list(found.doubts),
        "sums": _sums(folder, found.client_batch),
    }


def _sums(folder: Path, client_batch: float) -> list[list[float]]:
    """Rounds, S_min and E_min in examples, along a run: what any target that it reached would cost by other batches."""
    record = read(folder)
    size = client_batch if record.unit == "clients" else 1.0
    rng = np.random.default_rng(0)  # of intervals, which are not asked for
    places = np.linspace(0, len(record.rounds.traces), PLACES + 1)[1:]
    found = []
    for rounds in places:
        with suppress(ValueError):  # fewer than half of the rounds so far have estimates
            s_min, e_min, *_ = noiseless_sums(record.rounds, float(rounds), rng, times=1)
            found.append([float(rounds), s_min, e_min * size])
    return found


def _goal(found: Critical, goal: ToLoss, batches: list[float]) -> dict[str, Any]:
    """The sums, the run's own point, and the front: rounds with bounds, and examples, over batches."""
    drawn = np.geomspace(batches[0] / 2, batches[-1] * 2, POINTS)
    costs = [found.predict(float(batch), goal=goal) for batch in drawn]
    names = ("loss", "steps", "s_min", "e_min", "b_crit", "s_min_interval", "e_min_interval", "b_crit_interval")
    return {name: getattr(goal, name) for name in names} | {
        "own": [goal.steps, goal.steps * found.batch] if found.is_fixed else None,
        "rounds": [cost.rounds for cost in costs],
        "low": [cost.rounds_interval[0] for cost in costs],
        "high": [cost.rounds_interval[1] for cost in costs],
        "batch": [float(batch) for batch in drawn],
    }


def _cost(found: Critical, batch: float) -> dict[str, Any]:
    """A batch's needs to the lowest loss, by each way to make it."""
    cost = found.predict(batch)
    return {
        "batch": batch,
        "own": is_own(found, batch),
        "rounds": cost.rounds,
        "examples": cost.examples,
        "ways": [
            [way.cohort, way.client_batch, way.rounds, way.rounds_interval, way.examples, way.bytes, way.seconds]
            for way in ways(found, batch)
        ],
    }
