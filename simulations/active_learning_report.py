"""Tables and figure of active_learning.py, from its rows alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {
    "random": "#999999",
    "margin": "#0072B2",
    "entropy": "#56B4E9",
    "coreset": "#009E73",
    "badge": "#CC79A7",
    "cluster_margin": "#D55E00",
    "cluster_margin, tight": "#E69F00",
}
SETTING = ("data", "pool", "where", "labels_per_query")


def markdown(table: pl.DataFrame, overlap: Sequence[dict[str, object]]) -> str:
    """Accuracy by stage of every cell, labels needed for the next best selector's end, and overlaps of choices."""
    lines = []
    done = table.filter(pl.col("status") == "finished")
    for setting, cell in done.group_by(*SETTING, maintain_order=True):
        data, pool, where, labels = setting
        stages = sorted(cell["labels_used"].unique())
        lines += [f"### {data}, {pool} pool, {where}, {labels} labels a query", ""]
        lines += [
            "| selector | "
            + " | ".join(f"{count} labels" for count in stages)
            + " | class balance | seconds of queries | seeds |"
        ]
        lines += ["|---" * (len(stages) + 4) + "|"]
        for selector, own in cell.group_by("selector", maintain_order=True):
            lines.append(f"| {selector[0]} | " + " | ".join(_row(own, len(stages))) + " |")
        lines += ["", _needed(cell), ""]
    failed = table.height - done.height
    lines += [f"Runs that failed: {failed}.", "", "### Jaccard overlap with the choice of one owner, blobs", ""]
    scopes = ("two_level", "global_only", "local_only", "plain margin")
    lines += ["| blobs | partition | " + " | ".join(scopes) + " |", "|---" * 6 + "|"]
    for (spread, partition), own in pl.DataFrame(overlap).group_by("spread", "partition", maintain_order=True):
        means = [f"{own[scope].to_numpy().mean():.3f} ({own[scope].to_numpy().min():.3f})" for scope in scopes]
        lines.append(f"| {spread} | {partition} | " + " | ".join(means) + " |")
    return "\n".join([*lines, "", "Mean over seeds, and the lowest."]) + "\n"


def curve(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and mean and standard deviation over seeds of the accuracy in percent, by stage."""
    stages = rows.group_by("stage").agg(
        pl.col("labels_used").mean(),
        pl.col("test_accuracy").mean().alias("mean"),
        pl.col("test_accuracy").std(ddof=1).fill_null(0.0).alias("std"),
    )
    ordered = stages.sort("stage")
    return ordered["labels_used"].to_numpy(), 100 * ordered["mean"].to_numpy(), 100 * ordered["std"].to_numpy()


def labels_for(rows: pl.DataFrame, accuracy: float) -> float:
    """Labels at which the mean curve first reaches an accuracy in percent, between stages on a line; NaN if never."""
    labels, mean, _ = curve(rows)
    reached = np.flatnonzero(mean >= accuracy)
    if not len(reached):
        return float("nan")
    after = int(reached[0])
    if after == 0:
        return float(labels[0])
    share = (accuracy - mean[after - 1]) / (mean[after] - mean[after - 1])
    return float(labels[after - 1] + share * (labels[after] - labels[after - 1]))


def _needed(cell: pl.DataFrame) -> str:
    """In words: the best selector at the end, and the labels that it needed to get where the next best ended."""
    ends = {name: curve(cell.filter(pl.col("selector") == name))[1][-1] for name in cell["selector"].unique()}
    best, second = sorted(ends, key=lambda name: -ends[name])[:2]
    total = float(cell["labels_used"].to_numpy().max())
    text = (
        f"Highest at the end: {best}; {_share(cell, best, ends[second], total)} of the labels for the end of {second}."
    )
    if "margin" in ends and "cluster_margin" in ends:
        text += f" cluster_margin for the end of margin: {_share(cell, 'cluster_margin', ends['margin'], total)}."
    return text


def _share(cell: pl.DataFrame, name: str, accuracy: float, total: float) -> str:
    labels = labels_for(cell.filter(pl.col("selector") == name), accuracy)
    return "not reached" if np.isnan(labels) else f"{100 * labels / total:.0f} %"


def _row(own: pl.DataFrame, stages: int) -> list[str]:
    _, mean, std = curve(own)
    last = own.filter(pl.col("stage") == stages - 1)
    ends = [f"{last['class_balance'].to_numpy().mean():.3f}", f"{last['query_seconds'].to_numpy().mean():.2f}"]
    values = [f"{m:.1f} +- {s:.1f}" for m, s in zip(mean, std, strict=True)]
    return [*values, *ends, str(own["seed"].n_unique())]


def save_figure(table: pl.DataFrame, path: Path) -> None:
    """Accuracy against labels: a row a data set and number of owners, a column a kind of pool; small batches."""
    done = table.filter(pl.col("status") == "finished")
    smallest = done.group_by("data").agg(pl.col("labels_per_query").min())
    done = done.join(smallest, on=["data", "labels_per_query"])
    rows = done.select("data", "where").unique(maintain_order=True).rows()
    pools = done["pool"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(3.6 * len(pools) + 0.6, 2.9 * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), len(pools), squeeze=False)
    for line, (data, where) in zip(axes, rows, strict=True):
        for ax, pool in zip(line, pools, strict=True):
            cell = done.filter((pl.col("data") == data) & (pl.col("where") == where) & (pl.col("pool") == pool))
            if cell.is_empty():
                ax.set_axis_off()
                continue
            _panel(ax, cell)
            ax.set_title(f"{data}, {pool}, {where}", fontsize=9)
        line[0].set_ylabel("test accuracy %")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=len(names), fontsize=9)
    figure.savefig(path, dpi=110)


def _panel(ax: Axes, cell: pl.DataFrame) -> None:
    for name in (name for name in COLORS if name in cell["selector"]):
        labels, mean, std = curve(cell.filter(pl.col("selector") == name))
        strong = name == "cluster_margin"
        ax.plot(labels, mean, color=COLORS[name], label=name, lw=2.4 if strong else 1.3, zorder=3 if strong else 2)
        if name in ("cluster_margin", "margin"):
            ax.fill_between(labels, mean - std, mean + std, color=COLORS[name], alpha=0.15, lw=0)
    ax.set_xlabel("labels")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
