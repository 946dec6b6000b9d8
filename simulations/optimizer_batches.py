"""Which optimizer wants which batch? Gain curves and critical batches of five optimizers on a GPT.

    python -m simulations.optimizer_batches             five optimizers; an hour and a half of a busy core
    python -m simulations.optimizer_batches --quick     two optimizers on digits, a minute

The truth is that of `simulations.critical_batch_size`: rates walked by factors of 2, two seeds, and
S(B) = S_min + E_min / B fitted to three batches and to losses of each optimizer's own tuned run. Beside it stand the
sums along one run at the largest batch with the noise scale, and the same sums with B_half of the gain curve in its
place. Writes docs/results/optimizer_batches.parquet and .md, and a figure.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from fedbatch.batch.critical import fit_critical_batch_size
from fedbatch.results.store import read_rows
from simulations.critical_runs import Arrivals, launched, measured
from simulations.critical_tasks import DIGITS, NATURAL, PLAYS, SEQUENCES, Task
from simulations.study import command
from simulations.study_runs import run_once
from simulations.tables import table

SUMMARY = __doc__.splitlines()[0]
BATCHES, SEEDS = (8, 32, 128), (0, 1)
ADAM = ("server_optimizer.betas=[0.9,0.95]", "server_optimizer.weight_decay=0")
OPTIMIZERS = {
    "SGD, momentum": (0.2, ("server_optimizer=sgd", "server_optimizer.momentum=0.9")),
    "AdamW": (0.01, ("server_optimizer=adamw", *ADAM)),
    "LAMB": (0.02, ("server_optimizer=lamb", *ADAM, "server_optimizer.eps=1e-6")),
    "MERIT": (0.02, ("server_optimizer=merit", *ADAM)),
    "Muon": (0.01, ("server_optimizer=muon", *ADAM)),
}
"""Rate at which the walk begins, and overrides."""
GROUPS = ("noise_scale.groups=16", "noise_scale.every=2")


def main(arguments: list[str] | None = None) -> None:
    """Measure, compare, write the table and the figure."""
    with command("optimizer_batches", SUMMARY, "two optimizers on digits", arguments, True) as study:
        names = list(OPTIMIZERS)[:2] if study.quick else list(OPTIMIZERS)
        rows = pl.DataFrame(study.rows([partial(of_optimizer, study.runs, name, study.quick) for name in names]))
        study.save(rows)
        study.tell(markdown(rows))
        draw(rows, study.figure())


def of_optimizer(runs: Path, name: str, quick: bool) -> list[dict[str, Any]]:
    """A row for each goal: the fit, and what one run with groups says."""
    rate, stepped = OPTIMIZERS[name]
    model, examples, evaluated = (DIGITS, 1437, 1437) if quick else (PLAYS, SEQUENCES, 500)
    task = Task("GPT", NATURAL, name, (*model, *stepped), examples, BATCHES, rate, 40 if quick else 100, evaluated)
    goals, found = measured(partial(launched, task, runs), task.batches, task.rate, task.steps)
    largest = found[-1]
    best = largest.best[goals[-1]]
    steps = max((run.steps_to(goals[-1]) for _, run in largest.counted(goals[-1])), default=float(task.steps))
    lines = [curves(runs, task, best, seed, math.ceil(1.3 * steps)) for seed in SEEDS]
    return [
        {"optimizer": name, "goal": goal, "rate": best, **fitted(goal, found), **told(lines, largest, goal)}
        for goal in goals
    ]


def fitted(goal: float, found: Sequence[Arrivals]) -> dict[str, float]:
    """S_min and B_crit of the fit, with its interval; NaN where a batch did not get there."""
    pairs = [(at.batch, run.steps_to(goal)) for at in found for _, run in at.counted(goal)]
    if len({batch for batch, _ in pairs}) < 3:
        return dict.fromkeys(("s_min", "b_crit", "low", "high"), math.nan)
    fit = fit_critical_batch_size(*(np.array(values, dtype=float) for values in zip(*pairs, strict=True)))
    low, high = fit.b_crit_interval
    return {"s_min": fit.s_min, "b_crit": fit.b_crit, "low": low, "high": high}


def curves(runs: Path, task: Task, rate: float, seed: int, rounds: int) -> pl.DataFrame:
    """Noise scale and B_half in every round of a run at the largest batch."""
    options = task.run_overrides(task.batches[-1], rate, seed)
    folder = run_once(runs, [*options, *GROUPS, f"rounds={rounds}", "evaluate_every_rounds=0"])
    rows = [(row["noise_scale"], row.get("b_half")) for row in read_rows(folder / "rounds.jsonl")]
    return pl.DataFrame(rows, schema={"noise_scale": pl.Float64, "b_half": pl.Float64}, orient="row")


def told(lines: Sequence[pl.DataFrame], largest: Arrivals, goal: float) -> dict[str, float]:
    """E_min / S_min along the runs up to the goal, from the noise scale and from B_half; and B_half at the goal."""
    steps = [run.steps_to(goal) for _, run in largest.counted(goal)]
    count = math.ceil(np.mean(steps)) if steps else 0
    sums = {name: np.zeros(2) for name in ("noise_scale", "b_half")}
    for line in lines:
        for name, total in sums.items():
            total += of_run(line[name][:count].fill_null(strategy="backward").to_numpy(), float(largest.batch))
    ends = [line["b_half"][min(count, len(line)) - 1] for line in lines if count]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {f"told_{name}": float(total[1] / total[0]) for name, total in sums.items()}
    return values | {"b_half_there": float(np.median([math.nan if end is None else end for end in ends] or [math.nan]))}


def of_run(scales: np.ndarray, batch: float) -> np.ndarray:
    """S_min and E_min of rounds of one batch whose scales are known; see `fedbatch.batch.one_run`."""
    share = 1 / (1 + np.nan_to_num(scales, nan=np.inf, posinf=np.inf) / batch)
    return np.array([share.sum(), batch * (1 - share).sum()])


def markdown(rows: pl.DataFrame) -> str:
    """A line for each optimizer and goal."""
    lines = [
        [
            row["optimizer"] if number % 4 == 0 else "",
            f"{row['goal']:.3g}",
            f"{row['rate']:.3g}",
            f"{row['s_min']:.0f}",
            f"{row['b_crit']:.0f} ({row['low']:.0f}-{row['high']:.0f})",
            *(f"{row[name]:.0f}" for name in ("told_noise_scale", "told_b_half", "b_half_there")),
        ]
        for number, row in enumerate(rows.iter_rows(named=True))
    ]
    headings = ["optimizer", "training loss", "rate at the largest batch", "S_min", "B_crit, fitted (90 %)"]
    return table([*headings, "told by the noise scale", "told by B_half", "B_half at the loss"], lines)


def draw(rows: pl.DataFrame, path: Path) -> None:
    """Fitted critical batch against both that are told."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for ax, (name, label) in zip(
        axes, {"told_noise_scale": "noise scale", "told_b_half": "B_half"}.items(), strict=True
    ):
        for optimizer in rows["optimizer"].unique(maintain_order=True):
            own = rows.filter((pl.col("optimizer") == optimizer) & (pl.col("b_crit") >= 1))  # one is a batch
            ax.plot(own[name], own["b_crit"], "o-", label=optimizer)
        known = rows.filter(pl.col("b_crit").is_finite() & (pl.col("b_crit") >= 1))["b_crit"]
        ends = [known.min(), known.max()] if len(known) else [1.0, 10.0]
        ax.plot(ends, ends, color="gray", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel=f"told by the {label} of one run (sequences)")
    axes[0].set_ylabel("B_crit fitted to three batches (sequences)")
    axes[1].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
