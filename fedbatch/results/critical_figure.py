"""The picture of what one run says of other batches: examples against rounds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator

from fedbatch.results.critical import Critical
from fedbatch.results.critical_points import Point
from fedbatch.results.critical_table import is_own

COLOURS = ("#56B4E9", "#009E73", "#CC79A7", "#0072B2")  # Okabe and Ito; the lowest loss is the darkest
RUN, OTHERS = "#D55E00", "#1A1A1A"
FACTOR = 4.0
"""The curves go so far beyond the smallest and the largest batch that is marked."""


def save_critical_figure(found: Critical, batches: Sequence[float], points: Sequence[Point], path: Path) -> None:
    """A curve with its band for each loss, the batches marked on the lowest, and the runs' own points."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    marked = sorted({*batches, *(point.batch for point in points), found.batch})
    drawn = np.geomspace(marked[0] / FACTOR**0.5, marked[-1] * FACTOR**0.5, 80)
    for i, goal in enumerate(found.goals):
        color, lowest = (
            COLOURS[-len(found.goals) :][i] if len(found.goals) <= 4 else COLOURS[-1],
            goal is found.goals[-1],
        )
        costs = [found.predict(float(batch), goal=goal) for batch in drawn]
        low, high = np.array([cost.rounds_interval for cost in costs]).T
        axes.fill(
            np.concatenate([low, high[::-1]]),
            np.concatenate([low * drawn, (high * drawn)[::-1]]),
            color=color,
            alpha=0.2,
            lw=0,
        )
        rounds = np.array([cost.rounds for cost in costs])
        axes.plot(rounds, rounds * drawn, color=color, lw=2.2 if lowest else 1.2, label=f"{found.loss} {goal.loss:.4g}")
    if found.is_fixed:
        own = np.array([goal.steps for goal in found.goals])
        axes.plot(own, own * found.batch, "o", color=RUN, ms=8, zorder=4, label="this run")
    for batch in batches:
        cost = found.predict(batch)
        axes.plot(cost.rounds, cost.examples, "o", mfc="white", mec=COLOURS[-1], ms=5, zorder=3)
        text = f"{batch:,.0f}" if found.unit == "examples" else f"{cost.cohort:,.0f} clients"
        axes.annotate(
            text + (" (run)" if is_own(found, batch) else ""),
            (cost.rounds, cost.examples),
            xytext=(8, 6),
            textcoords="offset points",
            fontsize=9,
            zorder=6,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    others = [point for point in points if not is_own(found, point.batch)]
    if others:
        rounds = np.array([point.rounds for point in others])
        spent = rounds * np.array([[point.batch] for point in others])
        axes.plot(
            rounds.ravel(), spent.ravel(), "x", color=OTHERS, ms=7, mew=1.8, zorder=5, label="measured in other runs"
        )
    axes.set(xscale="log", yscale="log", xlabel="rounds to the loss", ylabel="examples to the loss")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_locator(LogLocator(subs=()))
    axes.set_title("what other batches would need, from one run", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=144)
