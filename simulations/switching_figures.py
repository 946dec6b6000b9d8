"""Figures of switching.py, from its rows alone."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from simulations.switching_contenders import FIXED
from simulations.switching_report import FRONT, SETTING, SHARES

COLORS = {
    "small": "#56B4E9",
    "middle": "#009E73",
    "large": "#0072B2",
    "ladder": "#D55E00",
    "old switch": "#999999",
    "norm test": "#CC79A7",
    "late switch": "#8C6D31",
    "goodput": "#E69F00",
}


def _settings(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    own = rows.filter(~pl.col("for_tuning"))
    return [(", ".join(map(str, s)), cell) for s, cell in own.group_by(*SETTING, maintain_order=True)]


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Rounds against examples to the target accuracy, a panel for each setting; geometric means over seeds.

    Who is told the axis stands there once for each axis.
    """
    settings = _settings(rows)
    columns = min(len(settings), 4)
    height = -(-len(settings) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.4 * height + 0.6), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False)
    for axes in panels.flat[len(settings) :]:
        axes.set_visible(False)
    for axes, (title, cell) in zip(panels.flat, settings, strict=False):
        for name, color in COLORS.items():
            _points(axes, cell.filter(pl.col("controller") == name), name, color)
        axes.set(xscale="log", yscale="log")
        axes.set_title(f"{title}: {100 * cell['target'][0]:g} %", fontsize=9)
        axes.margins(x=0.2, y=0.15)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
    shown = {label: mark for axes in panels.flat for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.supxlabel("rounds to the test accuracy (time)")
    figure.supylabel("examples to it (compute)")
    figure.savefig(path, dpi=110)


def _points(axes: Axes, own: pl.DataFrame, name: str, color: str) -> None:
    label: str | None = name
    for _, of in own.group_by("axis", maintain_order=True):
        points = of.select([f"{other}_to_target" for other in FRONT]).to_numpy()
        points = points[np.isfinite(points).all(axis=1)]
        if 2 * len(points) > len(of):
            marker = "o" if name in FIXED else "D"
            axes.plot(
                *np.exp(np.log(points).mean(axis=0)), marker, color=color, label=label, ms=7, mec="black", mew=0.6
            )
            label = None


def save_steep(rows: pl.DataFrame, path: Path) -> None:
    """Accuracy at equal rounds, a panel for each setting: what large rounds buy while training is short."""
    settings = _settings(rows.filter(pl.col("axis") == "rounds"))
    figure = Figure(figsize=(2.5 * len(settings), 3.0), layout="constrained")
    panels = figure.subplots(1, len(settings), squeeze=False)
    for axes, (title, cell) in zip(panels.flat, settings, strict=True):
        rounds = [share * cell["budget"][0] for share in (*SHARES, 1)]
        columns = [*(f"at_{share:g}_of_rounds" for share in SHARES), "test_accuracy"]
        for (name,), own in cell.filter(pl.col("controller").is_in([*FIXED, "ladder"])).group_by(
            "controller", maintain_order=True
        ):
            values = 100 * own.select(columns).to_numpy()
            means, spreads = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
            axes.errorbar(rounds, means, spreads, marker="o", ms=4, capsize=2, color=COLORS[str(name)], label=name)
        axes.set_title(title.replace(", ", "\n", 1), fontsize=9)
        axes.set_xlabel("rounds")
        axes.spines[["top", "right"]].set_visible(False)
    panels.flat[0].set_ylabel("test accuracy, %")
    panels.flat[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
