"""A second truth: from one moment of a run, the largest batch that loses nothing (Merrill et al. 2025, 2505.23971).

Branches leave the run at the smallest batch where it passes a goal. All see the same number of examples, in batches of
a quarter to four times the noise scale of that moment, with the rate scaled by the square root of the batch.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simulations.critical_runs import SEEDS
from simulations.critical_tasks import CLIENTS, Task
from simulations.study_runs import final, run_once

BRANCHED = {
    "momentum": ("next character, MLP", "Fashion, MLP", "80 % random labels"),
    "SGD": ("next character, MLP", "Fashion, MLP", "80 % random labels"),
    "Adam": (),
}
"""Tasks that are branched."""
PASSED = (2, 3)
"""Numbers of the goals where branches leave."""
BATCHES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""For the noise scale, rounded to a power of two."""
LARGEST_STEPS = 16
"""Steps of the branch with the largest batch; that with the smallest makes sixteen times as many."""
EVALUATED = 10_000
LOST = 0.1
"""Of the way that the smallest batch makes: who gets that much less far has lost something."""


def branches(task: Task, folder: Path, runs: pl.DataFrame, windows: pl.DataFrame) -> list[dict[str, Any]]:
    """A row for each moment, seed and batch: loss before and after the branch."""
    found = []
    for number in PASSED:
        at = (pl.col("optimizer") == task.optimizer) & (pl.col("task") == task.name) & (pl.col("number") == number)
        at &= pl.col("batch") == task.batches[0]
        trunk = runs.filter(at & pl.col("counts"))
        if trunk.is_empty():
            continue
        rate, steps = trunk["rate"][0], round(trunk["steps"][0])
        noise = last_noise_scale(windows.filter(at))
        middle = 2 ** round(math.log2(max(noise, 32.0)))
        for seed in SEEDS:
            before = final(_run(task, folder, rate, seed, steps, []), "training_set_loss")
            for share in BATCHES:
                batch = int(middle * share)
                branch = ["controller=schedule", f"controller.starts.large={steps}", *_large(task, batch, rate)]
                rounds = steps + round(LARGEST_STEPS * BATCHES[-1] / share)
                after = final(_run(task, folder, rate, seed, rounds, branch), "training_set_loss")
                row = {"optimizer": task.optimizer, "task": task.name, "number": number, "seed": seed, "noise": noise}
                found.append(row | {"steps": steps, "batch": batch, "share": share, "before": before, "after": after})
    return found


def last_noise_scale(windows: pl.DataFrame) -> float:
    """Of the last quarter of the windows of all seeds."""
    last = windows.filter(pl.col("window") > 0.75 * pl.col("window").max().over("seed"))
    trace, grad_sq = float(last["trace"].to_numpy().mean()), float(last["grad_sq"].to_numpy().mean())
    return trace / grad_sq if grad_sq > 0 else math.inf


def largest_without_loss(moment: pl.DataFrame) -> float:
    """The largest batch that keeps 90 % of the smallest one's way, between batches in the logarithm.

    Args:
        moment: rows of one moment. The way is the mean over seeds. It may be all batches, and is then the largest.
    """
    means = moment.group_by("batch").agg((pl.col("before") - pl.col("after")).mean().alias("way")).sort("batch")
    logs, kept = np.log(means["batch"].to_numpy()), means["way"].to_numpy() / means["way"][0]
    below = np.flatnonzero(kept < 1 - LOST)
    if not len(below):
        return float(np.exp(logs[-1]))
    i = below[0]
    share = (kept[i - 1] - (1 - LOST)) / (kept[i - 1] - kept[i])
    return float(np.exp(logs[i - 1] + share * (logs[i] - logs[i - 1])))


def _large(task: Task, batch: int, rate: float) -> list[str]:
    clients = min(batch, CLIENTS)
    phase = "controller.phases.large"
    return [
        *(f"{phase}.cohort_size={clients}", f"{phase}.client_batch_size={batch // clients}"),
        f"{phase}.lr={rate * math.sqrt(batch / task.batches[0]):.4g}",
    ]


def _run(task: Task, folder: Path, rate: float, seed: int, rounds: int, branch: list[str]) -> Path:
    trunk = task.run_overrides(task.batches[0], rate, seed)
    ends = [f"rounds={rounds}", "evaluate_every_rounds=0", f"training_set_examples={EVALUATED}"]
    return run_once(folder, [*trunk, *ends, *branch])
