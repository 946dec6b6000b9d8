"""Figure of dp_language.py, from its rows alone."""

import math
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.dp_language_report import at, ends, limit, reported, steps_of

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
KEPT_NOISE = "rising to {}, noise of the mean kept"


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Accuracy by batch, over examples, of rising batches, and lengths by decay."""
    own = reported(rows)
    figure = Figure(figsize=(11, 8), layout="constrained")
    (upper, over), (schedule, norms) = figure.subplots(2, 2)
    _by_batch(upper, own)
    _over_examples(over, own)
    _rising(schedule, own)
    _lengths(norms, own)
    for axes, columns in ((upper, 1), (over, 1), (schedule, 1), (norms, 3)):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8, ncols=columns)
    figure.savefig(path, dpi=120)


def _by_batch(axes: Axes, own: pl.DataFrame) -> None:
    runs = ends(at(own, rounds=steps_of(own)))
    sizes = sorted(runs["batch"].unique())
    for color, epsilon in zip(COLORS, sorted(runs["epsilon"].unique(), reverse=True), strict=False):
        cell = runs.filter(pl.col("epsilon") == epsilon)
        means = cell.group_by("batch").agg(pl.col("accuracy").mean()).sort("batch")
        label = "no privacy" if math.isinf(epsilon) else f"epsilon {epsilon:g}"
        axes.plot(means["batch"], means["accuracy"], color=color, label=label)
        axes.plot(cell["batch"], cell["accuracy"], "o", color=color, ms=4, alpha=0.6)
    axes.set(xscale="log", xlabel="batch (sequences)", ylabel="masked characters right, %")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_title(f"Equal epsilon, {steps_of(own)} steps (dots: seeds)", fontsize=10)


def _over_examples(axes: Axes, own: pl.DataFrame) -> None:
    epsilon = own["epsilon"][0]
    for color, batch in zip(COLORS, sorted(own["batch"].unique()), strict=False):
        cell = at(own, batch=batch, epsilon=epsilon, rounds=steps_of(own))
        means = cell.group_by("step").agg(pl.col("accuracy", "examples").mean()).sort("step")
        axes.plot(means["examples"], means["accuracy"], color=color, label=f"batch {batch:,}")
    axes.set(xscale="log", xlabel="examples", ylabel="masked characters right, %")
    axes.set_title(f"The same runs over examples, epsilon {limit(epsilon)} (means)", fontsize=10)


def _rising(axes: Axes, own: pl.DataFrame) -> None:
    epsilon = own["epsilon"][0]
    pairs = own.filter((pl.col("rising") != "") & (pl.col("epsilon") == epsilon))["batch"].unique(maintain_order=True)
    styles = {"": ("--", "fixed at {}"), "constant": ("-", "rising to {}"), "proportional": (":", KEPT_NOISE)}
    for color, batch in zip(COLORS, pairs, strict=False):
        for kind, (style, label) in styles.items():
            cell = at(own, batch=batch, epsilon=epsilon, rising=kind)
            cell = cell.filter((pl.col("rising") != "") | (pl.col("rounds") == steps_of(own)))
            means = cell.group_by("step").agg(pl.col("accuracy", "examples").mean()).sort("step")
            share = means["examples"] / (batch * steps_of(own))
            axes.plot(share, means["accuracy"], style, color=color, label=label.format(f"{batch:,}"))
    axes.set(xlabel="examples, as a share of all", ylabel="masked characters right, %")
    axes.set_title(f"Rising and fixed batches, epsilon {limit(epsilon)} (means)", fontsize=10)


def _lengths(axes: Axes, own: pl.DataFrame) -> None:
    batch = sorted(own["batch"].unique())[-2]
    cell = own.filter(pl.col("batch") == batch, pl.col("rounds") == steps_of(own), pl.col("rising") == "")
    private = cell.filter(pl.col("epsilon") == own["epsilon"][0]).sort("decay")
    for color, decay in zip(COLORS, private["decay"].unique(maintain_order=True), strict=False):
        means = private.filter(pl.col("decay") == decay).group_by("step").agg(pl.col("stream").mean()).sort("step")
        axes.plot(means["step"], means["stream"], color=color, label=f"decay {decay:g}")
    free = cell.filter(pl.col("epsilon").is_infinite()).group_by("step").agg(pl.col("stream").mean()).sort("step")
    axes.plot(free["step"], free["stream"], "--", color="black", label="no privacy, own rate")
    axes.set(xlabel="step", ylabel="length", ylim=(0, 1.35 * float(private["stream"].max())))  # type: ignore[arg-type]
    axes.set_title(f"Weights that norms divide by, epsilon {limit(own['epsilon'][0])}, batch {batch:,}", fontsize=10)
