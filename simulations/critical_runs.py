"""The runs of a task: a rate for each batch and goal by a walk, and what the record of each run says."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedbatch.batch.loss_curve import LossCurve
from fedbatch.batch.noiseless import Rounds
from fedbatch.batch.trust import CLIMB
from fedbatch.core.errors import ConfigError
from fedbatch.results.critical_rows import EVALUATIONS, curve_of, evidence, read
from fedbatch.results.folder import config_values
from simulations.critical_tasks import Task
from simulations.study_runs import run_once, status
from simulations.tuning import tuned

SHARES = (0.2, 0.4, 0.7, 1.0)
"""Of S_ref, at which the loss of the reference run is a goal."""
SEEDS, WALK = (0, 1), 9
BEYOND, PATIENCE = 1.25, 1.4
"""A run goes on for so many times the steps that are expected, and for so many times those of the best rate so far."""


@dataclass(frozen=True)
class Length:
    """When a run ends and how often its loss is read.

    Attributes:
        rounds: at most.
        every: rounds between evaluations.
    """

    rounds: int
    every: int


@dataclass(frozen=True)
class Run:
    """What a run says.

    Attributes:
        rounds: estimates of the noise, and batches.
        curve: loss on fixed examples of the training set.
        folder: of the record; None where fedbatch did not make the run.
    """

    rounds: Rounds
    curve: LossCurve
    folder: Path | None = None

    def steps_to(self, loss: float) -> float:
        """Steps to a loss, as `fedbatch critical` reads them; NaN where the run never got there."""
        falling = self.curve.falling()
        return math.nan if loss >= falling.losses[0] else falling.steps_to(loss)


Launch = Callable[[int, float, int, Length], Run | None]
"""Batch, rate, seed and length to a run; None where it diverged, or its loss climbs so that the rate is not trusted."""


@dataclass(frozen=True)
class Arrivals:
    """The runs at one batch.

    Attributes:
        batch: examples of a step.
        runs: by rate and seed; None where a run diverged.
        best: the rate that needs the fewest steps to each goal.
    """

    batch: int
    runs: dict[tuple[float, int], Run | None]
    best: dict[float, float]

    def counted(self, goal: float) -> list[tuple[int, Run]]:
        """Seeds and runs at the goal's best rate that got there."""
        found = ((seed, self.runs[self.best[goal], seed]) for seed in SEEDS)
        return [(seed, run) for seed, run in found if run is not None and not math.isnan(run.steps_to(goal))]


def launched(task: Task, folder: Path, batch: int, rate: float, seed: int, length: Length) -> Run | None:
    """A run of fedbatch; finished ones are read."""
    options = f"rounds={length.rounds}", f"evaluate_every_rounds={length.every}"
    found = run_once(folder, [*options, *task.run_overrides(batch, rate, seed)])
    if status(found) != "finished":
        return None
    record = read(found)
    try:
        curve = curve_of(found, record)
    except ConfigError:  # its loss never falls
        return None
    is_steady = evidence(record, curve, config_values(found), len(record.losses)).climb <= CLIMB
    return Run(record.rounds, curve, found) if is_steady else None


def measured(launch: Launch, batches: tuple[int, ...], rate: float, steps: int) -> tuple[list[float], list[Arrivals]]:
    """Goals, the easiest first, and the runs at every batch, the smallest first.

    The goals are losses of the run at the largest batch whose rate brings it furthest in ``steps``. Every batch's walk
    begins at a fourth of the best rate of the batch above it. A fourth of the batch needs at most four times the steps.
    """
    length = Length(round(BEYOND * steps), max(1, steps // 100))
    runs: dict[float, Run | None] = {}

    def end(rate: float) -> float:
        runs[rate] = launch(batches[-1], rate, SEEDS[0], length)
        found = runs[rate]
        return math.nan if found is None else found.curve.falling().after(steps)

    best = tuned(end, rate, runs=WALK)
    reference = runs[best]
    assert reference is not None
    falling = reference.curve.falling()
    goals = [falling.after(share * steps) for share in SHARES]
    found = [arrivals(launch, batches[-1], goals, best, length, runs)]
    needed: float = steps
    for batch, above in zip(batches[-2::-1], batches[:0:-1], strict=True):
        needed = min(
            (run.steps_to(goals[-1]) for _, run in found[-1].counted(goals[-1])), default=needed * above / batch
        )
        most = Length(round(BEYOND * needed * above / batch), max(1, round(needed / 60)))
        found.append(arrivals(launch, batch, goals, found[-1].best[goals[-1]] / 4, most, {}))
    return goals, found[::-1]


def arrivals(
    launch: Launch, batch: int, goals: list[float], start: float, most: Length, tried: dict[float, Run | None]
) -> Arrivals:
    """Walk to the best rate for each goal with the first seed, the hardest goal first; run other seeds at these rates.

    Nobody waits long for a run that is slower than another, but its loss is read as often as `fedbatch critical` wants.
    (A stop at the loss itself would come with its first dip.)
    """

    def patience(goal: float) -> Length:
        steps = [PATIENCE * run.steps_to(goal) for run in tried.values() if run is not None]
        fewest = min([most.rounds, *(s for s in steps if not math.isnan(s))])
        return Length(max(math.ceil(fewest), EVALUATIONS * most.every), most.every)

    def cost(goal: float, rate: float) -> float:
        if rate not in tried:
            tried[rate] = launch(batch, rate, SEEDS[0], patience(goal))
        if (run := tried[rate]) is None:
            return math.nan
        steps = run.steps_to(goal)
        return 1e9 * (1 + run.curve.losses[-1]) if math.isnan(steps) else steps  # not there: the nearer the better

    best = {goal: tuned(partial(cost, goal), start, runs=WALK) for goal in reversed(goals)}
    runs = {(rate, SEEDS[0]): run for rate, run in tried.items()}
    hardest = {rate: goal for goal, rate in reversed(best.items())}
    for rate, goal in hardest.items():
        runs |= {(rate, seed): launch(batch, rate, seed, patience(goal)) for seed in SEEDS[1:]}
    return Arrivals(batch, runs, best)
