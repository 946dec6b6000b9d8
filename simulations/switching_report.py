"""Table and figure of switching.py, from its rows alone."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from simulations.switching_costs import AXES
from simulations.tables import spread, table

XTICKS, YTICKS = (30, 50, 100, 200, 400), (5_000, 10_000, 20_000, 50_000, 100_000)
FIXED = ("small", "middle", "large")
FRONT = ("rounds", "examples")  # time and compute
COLORS = {
    "small": "#56B4E9",
    "middle": "#009E73",
    "large": "#0072B2",
    "schedule": "#999999",
    "switch": "#D55E00",
    "adaptive": "#CC79A7",
    "goodput": "#E69F00",
}
SETTING = ("task", "model", "partition", "optimizer")


def markdown(rows: pl.DataFrame) -> str:
    """Accuracy of every contender at the full budgets, and how far each is from the best fixed batch."""
    seeds = rows["seed"].n_unique()
    parts = [f"Test accuracy %, mean and standard deviation of {seeds} seed(s), when each budget is spent.\n"]
    full = rows.filter(pl.col("share") == 1)
    for setting, cell in full.group_by(*SETTING, maintain_order=True):
        lines, axes = [], [axis for axis in AXES if axis in cell["axis"]]
        for (name,), own in cell.group_by("controller", maintain_order=True):
            values = [spread(100 * own.filter(pl.col("axis") == axis)["test_accuracy"], ".1f") for axis in axes]
            lines.append([str(name), f"{own['rate'][0]:.2g}", *values, told(worst_gap(cell, str(name)))])
        budgets = [f"{axis} ({cell.filter(pl.col('axis') == axis)['budget'][0]:,.3g})" for axis in axes]
        headings = ["", "lr", *budgets, "worst gap to the best fixed"]
        parts.append(f"### {', '.join(map(str, setting))}\n\n{table(headings, lines)}")
    return "\n".join([*parts, summary(full), reached(full)])


def summary(full: pl.DataFrame) -> str:
    """The worst gap of every contender in every setting."""
    settings = list(full.group_by(*SETTING, maintain_order=True))
    names = full["controller"].unique(maintain_order=True)
    lines = [[name, *(told(worst_gap(cell, name)) for _, cell in settings)] for name in names]
    headings = ["worst gap, points", *(", ".join(map(str, setting[1:])) for setting, _ in settings)]
    return f"### All settings\n\n{table(headings, lines)}"


def reached(full: pl.DataFrame) -> str:
    """Rounds and examples to the target accuracy, geometric means over the seeds that got there."""
    settings = list(full.filter(pl.col("axis") == FRONT[0]).group_by(*SETTING, maintain_order=True))
    lines = []
    for name in full["controller"].unique(maintain_order=True):
        line = [str(name)]
        for _, cell in settings:
            own = cell.filter(pl.col("controller") == name).select([f"{axis}_to_target" for axis in FRONT]).to_numpy()
            there = own[np.isfinite(own).all(1)]
            means = " / ".join(f"{value:,.0f}" for value in np.exp(np.log(there).mean(0))) if len(there) else "-"
            line.append(means if len(there) in (0, len(own)) else f"{means} ({len(there)} of {len(own)})")
        lines.append(line)
    headings = [
        "rounds / examples",
        *(f"{', '.join(map(str, s[1:]))}: {100 * c['target'][0]:.0f} %" for s, c in settings),
    ]
    return f"### To the target accuracy\n\nGoodput as told to save rounds.\n\n{table(headings, lines)}"


def worst_gap(cell: pl.DataFrame, name: str) -> float:
    """Points by which ``name`` is behind (-) or ahead of the best fixed batch, on the axis where that is least."""
    means = cell.group_by("axis", "controller").agg(pl.col("test_accuracy").mean())
    gaps = []
    for axis in means["axis"].unique():
        own = means.filter(pl.col("axis") == axis)
        best = own.filter(pl.col("controller").is_in(FIXED))["test_accuracy"].drop_nans().to_numpy().max(initial=0)
        gaps.append(float(own.filter(pl.col("controller") == name)["test_accuracy"].to_numpy()[0] - best))
    return 100 * min(gaps, key=lambda gap: gap if gap == gap else -np.inf)


def told(gap: float) -> str:
    """A gap in points, or that there is none."""
    return f"{gap:+.1f}" if gap == gap else "failed"


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Rounds against examples to the target accuracy, a panel for each setting.

    Large marks are geometric means over the seeds that got there.
    """
    settings = rows.select(SETTING).unique(maintain_order=True).rows()
    columns = min(len(settings), 3)
    height = -(-len(settings) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * height + 0.6), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False)
    for ax in axes.flat[len(settings) :]:
        ax.set_visible(False)
    for ax, setting in zip(axes.flat, settings, strict=False):
        own = rows.filter(pl.col("share") == 1)
        for name, value in zip(SETTING, setting, strict=True):
            own = own.filter(pl.col(name) == value)
        for name, color in COLORS.items():
            _points(ax, own.filter(pl.col("controller") == name), name, color)
        ax.set(xscale="log", yscale="log", title=f"{', '.join(setting[1:])}: {100 * own['target'][0]:.0f} %")
        ax.title.set_fontsize(10)
        ax.margins(x=0.25)
        for axis, ticks in ((ax.xaxis, XTICKS), (ax.yaxis, YTICKS)):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_formatter(NullFormatter())
        ax.grid(alpha=0.25, which="both")
    shown = {label: mark for ax in axes.flat for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.supxlabel("rounds to the test accuracy (time)")
    figure.supylabel("examples to it (compute)")
    figure.savefig(path, dpi=110)


def _points(ax: Axes, own: pl.DataFrame, name: str, color: str) -> None:
    """A mark for each run that is a contender of its own: goodput has one for each cost that it is told."""
    marks: dict[tuple[float, float], list[str]] = {}
    for axis in own["axis"].unique(maintain_order=True) if name == "goodput" else own["axis"][:1]:
        points = own.filter(pl.col("axis") == axis).select([f"{other}_to_target" for other in FRONT]).to_numpy()
        points = points[np.isfinite(points).all(1)]
        if len(points):
            ax.plot(*points.T, ".", color=color, alpha=0.5)
            x, y = np.exp(np.log(points).mean(0))
            marks.setdefault((float(x), float(y)), []).append(axis.split(", ")[-1])
    for index, (middle, told) in enumerate(marks.items()):
        marker, label = ("o" if name in FIXED else "D"), (name if not index else None)
        # Larger and below the others: told only examples, it is the small batch.
        size, order = (11, 2) if name == "goodput" else (8, 3)
        ax.plot(*middle, marker, color=color, label=label, markersize=size, markeredgecolor="black", zorder=order)
        if name == "goodput":
            ax.annotate(", ".join(told), middle, xytext=(7, 6), textcoords="offset points", fontsize=8)
