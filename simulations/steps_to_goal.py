"""Steps to goals that are given: the rate is tuned for each batch and goal, and S(B) = S_min + E_min / B fitted."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fedbatch.batch.critical import fit_critical_batch_size
from simulations.goals import Curve, curve, noise_scale_at, noise_scale_at_start, steps_to
from simulations.study_runs import run_once
from simulations.tuning import tuned

TUNING_SEED, WALK = 100, 9
CLIENTS = 64
EVALUATIONS = 60  # of a run, about
Run = Callable[[int, float, int], Curve | None]
"""Batch, learning rate and seed to a run's curve; None where it diverged."""


@dataclass(frozen=True)
class Task:
    """A task and the grid on which it is measured.

    Attributes:
        name: as in tables.
        overrides: of fedbatch.
        examples: N, in the training set.
        goals: loss on the training set, falling.
        batches: rising by equal factors.
        rate: learning rate from which the search starts, at the smallest batch.
        guess: (steps, batch): S_min and B_crit, roughly; they say how often to evaluate and when to give up.
        tokens: of an example; sizes are told in them.
    """

    name: str
    overrides: tuple[str, ...]
    examples: int
    goals: tuple[float, ...]
    batches: tuple[int, ...]
    rate: float
    guess: tuple[int, int]
    tokens: int = 1

    def run_overrides(self, batch: int, rate: float, seed: int) -> list[str]:
        """All overrides of one run: as many clients as there are examples in the batch, up to all clients."""
        clients, expected = min(batch, CLIENTS), self.guess[0] * (1 + self.guess[1] / batch)
        return [
            *("controller=fixed", "executor=fused", "checkpoint_every_rounds=0", f"population={CLIENTS}"),
            *(f"cohort_size={clients}", f"client_batch_size={batch // clients}", "training_set_examples=2000"),
            *(
                "target_metric=training_set_loss",
                f"target_value={0.9 * self.goals[-1]:.4g}",
                "learning_rate.rule=constant",
            ),
            *(f"rounds={int(5 * expected)}", f"evaluate_every_rounds={max(1, int(expected / EVALUATIONS))}"),
            *(f"server_optimizer.lr={rate:.4g}", f"seed={seed}", *self.overrides),
        ]


def of_task(task: Task, folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Steps to each goal by batch and seed, and the noise scale there, in tokens where a task has them."""

    def run(batch: int, rate: float, seed: int) -> Curve | None:
        return curve(run_once(folder, task.run_overrides(batch, rate, seed)))

    points = measure(run, task.batches, task.goals, task.rate, task.examples, seeds)
    return [{"task": task.name, "tokens": task.tokens, "examples": float(task.examples)} | point for point in points]


def measure(
    run: Run,
    batches: Sequence[int],
    goals: Sequence[float],
    rate: float,
    examples: float,
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Rows of all runs that count: the seeds at each goal's best rate, and the runs of the search for it."""
    points, start = [], rate
    for batch in batches:
        tried: dict[float, Curve | None] = {}

        def cost(goal: float, rate: float, batch: int = batch, tried: dict[float, Curve | None] = tried) -> float:
            if rate not in tried:
                tried[rate] = run(batch, rate, TUNING_SEED)
            if (found := tried[rate]) is None:
                return math.nan
            steps = steps_to(goal, found)
            return steps if steps == steps else 1e9 * (1 + found.losses[-1])  # not there: the nearer the better

        best = {goal: tuned(partial(cost, goal), start, runs=WALK) for goal in goals}
        start = best[goals[-1]]  # the next batch's search begins here
        for goal, rate in best.items():
            ends = [(r, TUNING_SEED, c) for r, c in tried.items()]
            for r, seed, found in ends + [(rate, seed, run(batch, rate, seed)) for seed in seeds]:
                row = {"goal": goal, "batch": batch, "rate": r, "seed": seed, "tuning": seed == TUNING_SEED}
                points.append(row | arrival(found, goal, examples))
            shown = ", ".join(f"{p['steps']:.1f}" for p in points[-len(seeds) :])
            print(f"goal {goal:g}, batch {batch}, lr {rate:.3g}: {shown} steps", file=sys.stderr, flush=True)
    return points


def arrival(found: Curve | None, goal: float, examples: float) -> dict[str, float]:
    """Steps to the goal and the noise scale there and at the start; NaN for a run that did not arrive."""
    steps = math.nan if found is None else steps_to(goal, found)
    if found is None or math.isnan(steps):
        return dict.fromkeys(("steps", "b_noise", "b_start"), math.nan)
    there, before = (scale(steps, found, examples) for scale in (noise_scale_at, noise_scale_at_start))
    return {"steps": steps, "b_noise": there, "b_start": before}


def fit(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for every task and goal; sizes in examples or tokens."""
    rows = []
    table = pl.DataFrame(points).filter(~pl.col("tuning"))
    for (task, goal), cell in table.group_by("task", "goal", maintain_order=True):
        done = cell.filter(pl.col("steps").is_finite())
        if done["batch"].n_unique() < 3:
            continue
        tokens, noise = float(cell["tokens"][0]), np.log(done["b_noise"].drop_nans().to_numpy())
        # Without replacement the noise of a batch is tr(Sigma) (1/B - 1/N).
        sizes = 1 / (1 / done["batch"].to_numpy() - 1 / cell["examples"][0])
        found = fit_critical_batch_size(sizes, done["steps"].to_numpy())
        low, high = found.b_crit_interval
        row = {"task": task, "goal": goal, "b_noise": tokens * float(np.exp(noise.mean()))}
        row["b_start"] = tokens * float(np.exp(np.log(done["b_start"].drop_nans().to_numpy()).mean()))
        row |= {"b_noise_se": row["b_noise"] * float(noise.std(ddof=1) / math.sqrt(len(noise)))}
        row |= {"b_crit": tokens * found.b_crit, "b_crit_low": tokens * low, "b_crit_high": tokens * high}
        row |= {"s_min": found.s_min, "e_min": tokens * found.e_min, "seeds": cell["seed"].n_unique()}
        rows.append(row | {"unreached": cell.height - done.height})
    return rows
