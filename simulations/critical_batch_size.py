"""Does the gradient noise scale predict the critical batch size? After McCandlish et al. 2018, on our tasks.

    python -m simulations.critical_batch_size             all tasks; about an hour and a half of one core
    python -m simulations.critical_batch_size --quick     digits and the quadratic, under a minute

For every task and global batch the learning rate is tuned on a grid of factor two (steps to each goal, a seed that
is not reported). S(B) = S_min + E_min / B is fitted over batches and seeds, and
B_crit = E_min / S_min is put beside B_simple, measured in the same runs as they reach the goal. Finished runs are
skipped. Writes docs/results/critical_batch_size.parquet, .md
and _runs.parquet, and two figures.
"""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import joblib
import numpy as np
import polars as pl

from fedbatch.batch.critical import fit_critical_batch_size
from simulations import quadratic
from simulations.critical_batch_size_report import markdown, save_figure, save_fronts
from simulations.critical_tasks import EASY, TASKS, Task
from simulations.goals import Curve, curve, noise_scale_at, noise_scale_at_start, steps_to
from simulations.study import command
from simulations.study_runs import run_once
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED, SEEDS, WALK = 100, (0, 1, 2), 9
GAME_SEEDS = tuple(range(10))  # a game is noisier than a fixed training set
Run = Callable[[int, float, int], Curve | None]
"""Batch, learning rate and seed to a run's curve; None where it diverged."""


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, fit, write tables and figures."""
    with command("critical_batch_size", SUMMARY, "one easy task, three batches, one seed", arguments, True) as study:
        tasks, seeds = (EASY, SEEDS[:1]) if study.quick else (TASKS, SEEDS)
        cells = [partial(of_task, task, study.runs, seeds) for task in tasks] + [partial(of_quadratic, seeds)]
        if not study.quick:
            cells.append(partial(of_cartpole, study.runs, GAME_SEEDS))
        points = study.rows(cells)
        runs, fits = pl.DataFrame(points), pl.DataFrame(fit(points))
        study.save(runs, "_runs")
        study.save(fits)
        study.tell(markdown(fits, runs))
        save_figure(fits, study.figure())
        save_fronts(fits, runs, study.figure("_fronts"))


def of_task(task: Task, folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Steps to each goal by batch and seed, and the noise scale there, in tokens where a task has them."""

    def run(batch: int, rate: float, seed: int) -> Curve | None:
        return curve(run_once(folder, task.run_overrides(batch, rate, seed)))

    points = measure(run, task.batches, task.goals, task.rate, task.examples, seeds)
    return [{"task": task.name, "tokens": task.tokens, "examples": float(task.examples)} | point for point in points]


def of_quadratic(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The same for a quadratic whose answer is known."""

    def run(batch: int, rate: float, seed: int) -> Curve | None:
        return quadratic.trajectory(batch, rate, quadratic.most_steps(batch), seed)

    points = measure(run, quadratic.BATCHES, quadratic.GOALS, quadratic.START_RATE, math.inf, seeds, factor=2**0.25)
    return [{"task": "noisy quadratic", "tokens": 1, "examples": math.inf} | point for point in points]


def of_cartpole(folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The same for a game; finished runs are remembered in ``folder``."""
    import gymnasium  # which only this task needs

    from simulations import cartpole

    source = hashlib.sha256(Path(cartpole.__file__).read_bytes() + gymnasium.__version__.encode()).hexdigest()[:12]
    run = joblib.Memory(folder / f"cartpole-{source}", verbose=0).cache(cartpole.training)
    points = measure(run, cartpole.BATCHES, cartpole.GOALS, cartpole.START_RATE, math.inf, seeds)
    return [{"task": "CartPole policy gradient", "tokens": 1, "examples": math.inf} | point for point in points]


def measure(
    run: Run,
    batches: Sequence[int],
    goals: Sequence[float],
    rate: float,
    examples: float,
    seeds: Sequence[int],
    factor: float = 2.0,
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

        walk = WALK if factor == 2.0 else 4 * WALK
        best = {goal: tuned(partial(cost, goal), start, factor, runs=walk) for goal in goals}
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


if __name__ == "__main__":
    main()
