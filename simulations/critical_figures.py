"""Figures of critical_batch_size.py, from its rows alone."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.critical_batch_size_report import JUDGED

COLORS = "#000000 #E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7".split()
TITLES = {"momentum": "SGD, momentum 0.9 (registered)", "SGD": "plain SGD", "Adam": "Adam"}
MARKERS = {"natural": "osD", "artificial noise": "^v<"}


def save_figure(found: pl.DataFrame, path: Path) -> None:
    """Predicted against measured critical batch of all goals, a panel for each optimizer."""
    judged = found.filter(pl.col("fit_s_min") >= JUDGED)
    optimizers = judged["optimizer"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(4.2 * len(optimizers) + 2.2, 4.4), layout="constrained")
    axes = figure.subplots(1, max(len(optimizers), 1), squeeze=False)[0]
    styles, ends = _styles(judged), _ends(judged, "told", "b_crit")
    for ax, optimizer in zip(axes, optimizers, strict=False):
        for (task,), own in judged.filter(optimizer=optimizer).group_by("task", maintain_order=True):
            middle, low, high = (own[name].to_numpy() for name in ("b_crit", "b_crit_low", "b_crit_high"))
            bars = [middle - low, np.minimum(high, 100 * middle) - middle]
            marker, color = styles[str(task)]
            ax.errorbar(own["told"].to_numpy(), middle, yerr=bars, fmt="none", color=color, capsize=2, lw=0.8)
            ax.plot(own["told"].to_numpy(), middle, marker, color=color, mec="black", ms=7, label=str(task))
        _diagonal(ax, ends)
        ax.set(title=TITLES[optimizer], xlabel="B_crit told by one batch, examples")
    figure.axes[0].set_ylabel("B_crit fitted to all batches, examples")
    _legend(figure)
    figure.savefig(path, dpi=110)


def save_costs(spent: pl.DataFrame, path: Path) -> None:
    """Predicted against measured steps and examples of all other batches; marks grow with the batch."""
    judged = spent.filter(pl.col("fit_s_min") >= JUDGED)
    optimizers = judged["optimizer"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(4.2 * len(optimizers) + 2.2, 7.6), layout="constrained")
    axes = figure.subplots(2, max(len(optimizers), 1), squeeze=False)
    styles = _styles(judged)
    for row, (name, factor) in enumerate({"steps": pl.lit(1), "examples": pl.col("batch")}.items()):
        sized = judged.with_columns(told=pl.col("predicted") * factor, was=pl.col("steps") * factor)
        ends = _ends(sized, "told", "was")
        for ax, optimizer in zip(axes[row], optimizers, strict=False):
            for (task,), own in sized.filter(optimizer=optimizer).group_by("task", maintain_order=True):
                marker, color = styles[str(task)]
                areas = 8 * np.log2(own["times"].to_numpy())
                x, y = own["told"].to_numpy(), own["was"].to_numpy()
                ax.scatter(
                    x, y, areas, color, marker=marker, edgecolors="black", linewidths=0.5, label=str(task), zorder=3
                )
            _diagonal(ax, ends)
            ax.set(title=TITLES[optimizer], xlabel=f"{name} predicted")
        axes[row, 0].set_ylabel(f"{name} measured")
    _legend(figure)
    figure.savefig(path, dpi=110)


def _styles(rows: pl.DataFrame) -> dict[str, tuple[str, str]]:
    """A mark and a colour for each task; triangles have artificial noise."""
    found: dict[str, tuple[str, str]] = {}
    for (kind,), own in rows.group_by("kind", maintain_order=True):
        for i, task in enumerate(own["task"].unique(maintain_order=True).to_list()):
            found[task] = MARKERS[str(kind)][i // len(COLORS)], COLORS[i % len(COLORS)]
    return found


def _ends(rows: pl.DataFrame, *columns: str) -> tuple[float, float]:
    values = np.concatenate([rows[name].to_numpy() for name in columns])
    values = values[np.isfinite(values)]
    return (float(values.min()) / 1.6, float(values.max()) * 1.6) if len(values) else (1.0, 10.0)


def _diagonal(ax: Axes, ends: tuple[float, float]) -> None:
    line = np.array(ends)
    ax.plot(line, line, color="#444444", lw=1)
    ax.fill_between(line, line / 2, line * 2, color="#0072B2", alpha=0.08, lw=0)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.grid(alpha=0.25)


def _legend(figure: Figure) -> None:
    known = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known.keys(), loc="outside right center", frameon=False, fontsize=8)
