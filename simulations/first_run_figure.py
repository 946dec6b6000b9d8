"""The pictures of the first run: what each batch costs, and what one run says of the others."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from fedbatch import critical
from fedbatch.results.critical_points import Point, points
from fedbatch.results.critical_table import agreement

COLOURS = ("tab:blue", "tab:green", "tab:purple", "tab:red")
SCORE = "average_test_accuracy"


def save_curves(curves: pl.DataFrame, targets: Sequence[float], path: Path) -> None:
    """Accuracy over rounds and over examples, with a band over seeds, and the targets."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    names = curves["contender"].unique(maintain_order=True)
    for ax, column in zip(axes, ("rounds", "examples"), strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            _band(ax, curves.filter(pl.col("contender") == name), column, name, colour)
        for target in targets:
            ax.axhline(target, color="gray", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel=f"{column} (logarithmic)", ylim=(targets[0] - 0.12, targets[-1] + 0.015))
    axes[0].set_ylabel("test accuracy of the average")
    axes[0].set_title("where rounds cost: the small batch is slow", fontsize=10)
    axes[1].set_title("where examples cost: large batches waste them", fontsize=10)
    for target in targets:
        axes[0].text(axes[0].get_xlim()[0] * 1.1, target + 0.002, f"{target:.0%}", color="gray")
    axes[1].legend(loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _band(ax: Axes, own: pl.DataFrame, column: str, name: str, colour: str) -> None:
    """Mean and standard deviation over seeds at the same rounds, drawn at the mean of ``column``."""
    numbers = pl.col(SCORE).mean().alias("mean"), pl.col(SCORE).std().fill_null(0.0).alias("spread")
    at = own.group_by("rounds", maintain_order=True).agg(*numbers, pl.col("examples").mean())
    x, mean, spread = (at[key].to_numpy() for key in (column, "mean", "spread"))
    width = 2.4 if name.startswith("fedbatch") else 1.3
    ax.plot(x, mean, color=colour, lw=width, label=name)
    ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)


def save_front(folders: Sequence[Path], losses: Sequence[float], path: Path) -> str:
    """Rounds against examples to each loss: a line as predicted from the first run alone, points of all runs.

    Returns:
        How far the other runs are from the lines, in a sentence.
    """
    found = critical(folders[0], losses)
    own, others = (
        Point(found.batch, found.cohort, 1, tuple(g.steps for g in found.goals), ()),
        points(found, folders[1:]),
    )
    batches = np.geomspace(found.batch / 4, found.batch * 64, 60)
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for i, (goal, colour) in enumerate(
        zip(found.goals, ("tab:blue", "tab:green", "tab:orange", "tab:red"), strict=False)
    ):
        told = [found.predict(batch=batch, goal=goal) for batch in batches]
        line = [p.examples for p in told], [p.rounds for p in told]
        ax.plot(*line, color=colour, lw=1.2, label=f"training loss {goal.loss:g}")
        for point, marker in ((own, "s"), *((other, "o") for other in others)):
            rounds = point.rounds[i]
            ax.plot(point.batch * rounds, rounds, marker=marker, color=colour, mec="black", ms=7)
    ax.set(xscale="log", yscale="log", xlabel="examples", ylabel="rounds")
    names = ", ".join(f"{point.batch:,.0f}" for point in others)
    ax.set_title(f"lines: told by the run of batch {own.batch:,.0f} (squares); circles: batches {names}", fontsize=9)
    ax.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return " ".join(agreement(found, others))
