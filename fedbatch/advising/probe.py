"""The probe: a short run of the user's own config at one small batch, as long as the told minutes allow."""

import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

from fedbatch.aggregation.sums import DivergedError
from fedbatch.api import run
from fedbatch.batch.trust import CLIENTS, TOO_FAST
from fedbatch.config import given
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.results.critical import critical
from fedbatch.results.critical_rows import EVALUATIONS, NEVER_FALLS, read
from fedbatch.results.folder import config_values
from fedbatch.results.record import FILE, each_row

LEAST_ROUNDS = 36
READINGS = 64
"""Evaluations of a probe, unless they would take half of its time."""
TRIAL = 1 / 3
"""Of the rounds, after which the learning rate is judged."""
LOSS_EXAMPLES = 2000
SLOW = 1e-6
"""Learning rate of the rounds that only tell the pace."""
PACE = {"rounds": 12, "evaluate_every_rounds": 6}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """A probe that has ended.

    Attributes:
        folder: of its run.
        config: of its run.
        notes: what was done that was not asked for, in words.
    """

    folder: Path
    config: Mapping[str, Any]
    notes: tuple[str, ...]


def probed(
    config: RunConfig, overrides: Sequence[str], values: Mapping[str, Any], folder: Path, minutes: float
) -> Probe:
    """Probe a config; once more at half the learning rate, where the first third of the rounds says it is too high.

    Args:
        config: of the user.
        overrides: that give it, without what `settings_of` sets.
        values: the same by key.
        folder: in which the runs of the probe go.
        minutes: that it may take, about; the run ends sooner where the config has fewer rounds.

    Raises:
        ConfigError: so few rounds in so many minutes that they say nothing; or the loss falls at neither rate.
        RunFailedError: the run cannot go on.
    """
    end = monotonic() + 60 * minutes
    settings, notes = settings_of(config)
    objects, _ = given.sorted_out(values)
    most, lr = max(config.rounds, LEAST_ROUNDS), config.server_optimizer.get("lr")
    still = {"server_optimizer.lr": SLOW} if isinstance(lr, int | float) else {}  # any rate has the same pace
    pace = pace_of(_run(overrides, values, settings | PACE | still | {"run_dir": str(folder / "pace")}))

    def tried(name: str, rate: dict[str, float]) -> tuple[Path, int, str]:
        rounds, every = length(end - monotonic(), pace, most, minutes)
        trial = {"rounds": max(round(TRIAL * rounds), LEAST_ROUNDS // 2), "evaluate_every_rounds": every}
        place = folder / name
        return place, rounds, _problem(overrides, values, settings | trial | rate | {"run_dir": str(place)})

    place, rounds, problem = tried("probe", {})
    if problem and isinstance(lr, int | float):
        log.info("probe: at server_optimizer.lr=%g %s; once more at half the rate", lr, problem)
        notes.append(f"at server_optimizer.lr={lr:g} {problem}; all numbers are at half of it, {lr / 2:g}")
        place, rounds, problem = tried("half", {"server_optimizer.lr": lr / 2})
    if problem and not problem.startswith(TOO_FAST):
        raise ConfigError(f"server_optimizer.lr: {problem}; lower it and ask again")
    log.info("probe: %d rounds, in %s", rounds, place)
    with _silent():
        run(**objects, resume=str(place), rounds=rounds)
    return Probe(place, config_values(place), tuple(notes))


def settings_of(config: RunConfig) -> tuple[dict[str, Any], list[str]]:
    """What a probe sets in a config, by key, and notes on what of it changes the numbers."""
    cohort, notes = config.cohort_size, list[str]()
    if cohort < CLIENTS:
        cohort = min(CLIENTS, config.population)
        notes.append(f"the probe took {cohort} clients a round, not cohort_size={config.cohort_size}: fewer say little")
    settings = {
        "controller": "fixed",
        "cohort_size": cohort,
        "client_batch_size": config.client_batch_size,
        "tracker": "none",
        "report": "none",
        "target_value": None,
        "patience": None,
        "keep_best": False,
        "training_set_examples": config.training_set_examples or LOSS_EXAMPLES,
        "noise_scale.halves": config.executor != "chain",  # the compiled executor has none
    }
    if config.learning_rate.get("decay", "none") != "none":
        settings |= {"learning_rate.decay": "none", "learning_rate.examples": None}
        notes.append("learning_rate.decay was left out of the probe; with it, a run needs other rounds")
    return settings, notes


def pace_of(folder: Path) -> tuple[float, float]:
    """Seconds of a round and of an evaluation, without the first ones."""
    rows = list(each_row(folder / FILE))
    rounds = [row["measured_seconds"] - before["measured_seconds"] for before, row in pairwise(rows)]
    evaluations = [row["evaluate_seconds"] for row in rows if row.get("training_set_loss") is not None]
    return statistics.median(rounds), statistics.median(evaluations[1:])


def length(seconds: float, pace: tuple[float, float], most: int, minutes: float) -> tuple[int, int]:
    """Rounds of a probe, and the rounds from one evaluation to the next.

    Evaluations are `READINGS`, or as many as take half of the time. Where these are too few for a curve of the loss,
    they are left out but for two, and the loss is that of the rounds' own examples.

    Args:
        seconds: that are left.
        pace: seconds of a round and of an evaluation.
        most: rounds that are of use.
        minutes: that were told, for the message.

    Raises:
        ConfigError: too few rounds.

    >>> length(60.0, (0.1, 0.1), 10_000, 1.0), length(60.0, (0.001, 0.01), 800, 1.0)
    ((536, 8), (800, 12))
    """
    of_round, of_evaluation = pace
    readings = min(READINGS, int(seconds / 2 / of_evaluation))
    readings = readings if readings >= EVALUATIONS + 2 else 2
    rounds = int((seconds - readings * of_evaluation) / of_round)
    if rounds < LEAST_ROUNDS:
        needed = (LEAST_ROUNDS * of_round + 2 * of_evaluation) / 60
        raise ConfigError(
            f"minutes: {minutes:g} are too few for {LEAST_ROUNDS} rounds of this config, at {of_round:.3g} s a round "
            f"and {of_evaluation:.3g} s an evaluation; give {minutes + 2 * needed:.2g} or more"
        )
    rounds = min(rounds, most)
    return rounds, max(rounds // readings, 1)


def _problem(overrides: Sequence[str], values: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Run, and say what speaks against the learning rate; empty for nothing."""
    try:
        folder = _run(overrides, values, settings)
        found, start = critical(folder), read(folder).start
    except DivergedError as error:
        return f"the probe diverged ({error})"
    except ConfigError as error:
        if NEVER_FALLS not in str(error):
            raise
        return f"the loss {NEVER_FALLS}"
    if found.goals[-1].loss > start:
        return (
            f"the loss is {found.goals[-1].loss:.4g} after {settings['rounds']} rounds, above the {start:.4g} at first"
        )
    return next((doubt.partition(";")[0] for doubt in found.doubts if doubt.startswith(TOO_FAST)), "")


def _run(overrides: Sequence[str], values: Mapping[str, Any], settings: Mapping[str, Any]) -> Path:
    kept = {key: value for key, value in values.items() if key not in settings}
    with _silent():
        return run(*overrides, **kept, **settings).folder


@contextmanager
def _silent() -> Iterator[None]:
    """Say nothing of the rounds inside the block, which are not the user's run."""
    runs = logging.getLogger("fedbatch")
    before = runs.level
    runs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        runs.setLevel(before)
