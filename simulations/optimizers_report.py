"""Table and figure of optimizers.py, from its rows alone."""

from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.tables import spread, table

COLORS = {"AdamW": "#000000", "LARS": "#009E73", "LAMB": "#0072B2", "MERIT": "#D55E00", "Muon": "#CC79A7"}
CLOSE = 1.01
"""A batch keeps the small batch's loss when its own is at most this many times as large."""


def markdown(rows: pl.DataFrame) -> str:
    """Loss of every cell, the largest batch that keeps the loss, and the largest logit."""
    tokens, seeds = rows["tokens"][0], rows["seed"].n_unique()
    cells, kept = [], []
    for (name, batch), cell in rows.group_by("optimizer", "batch", maintain_order=True):
        logits = pl.Series([max(run[-1]) for run in cell["logits"].to_list() if run], dtype=pl.Float64)
        numbers = [f"{batch!s}", f"{cell['rounds'][0]}", f"{cell['rate'][0]:.2g}"]
        cells.append([str(name), *numbers, spread(cell["loss"]), spread(logits, ".1f")])
    means = _means(rows)
    best = means.filter(pl.col("batch") == means["batch"].min())["mean"].to_numpy().min()
    for name in rows["optimizer"].unique(maintain_order=True):
        own = means.filter(pl.col("optimizer") == name).sort("batch")
        kept.append([name, _largest(own, CLOSE * own["mean"].to_numpy()[0]), _largest(own, CLOSE * best)])
    return (
        f"Validation loss in nats a character after {tokens:,} tokens, mean and deviation of {seeds} seed(s).\n\n"
        + table(["optimizer", "batch", "steps", "lr", "loss", "largest attention logit at the end"], cells)
        + "\n"
        + table(["optimizer", "largest batch within 1 % of its own smallest", "of the best optimizer's smallest"], kept)
    )


def _means(rows: pl.DataFrame) -> pl.DataFrame:
    """Mean and standard deviation of the loss by optimizer and batch; NaN where a run failed."""
    loss = pl.col("loss")
    return rows.group_by("optimizer", "batch").agg(loss.mean().alias("mean"), loss.std().fill_null(0).alias("std"))


def _largest(own: pl.DataFrame, bar: float) -> str:
    within = own.filter(pl.col("mean") <= bar)["batch"].to_list()
    return f"{max(within):,}" if within else "none"


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Loss against batch, and the largest logit of each layer over training at the largest batch."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    means = _means(rows)
    for name in rows["optimizer"].unique(maintain_order=True):
        own = means.filter(pl.col("optimizer") == name).sort("batch")
        left.errorbar(own["batch"], own["mean"], own["std"], color=COLORS[name], label=name, marker="o", capsize=3)
    left.set(xscale="log", xlabel="global batch (sequences)", ylabel="validation loss (nats a character)")
    left.set_title(f"{rows['tokens'][0]:,} tokens each, learning rate tuned for every point", fontsize=10)
    batches = sorted(rows["batch"].unique())
    left.set_xticks(batches, [f"{batch:,}" for batch in batches])
    left.minorticks_off()
    left.legend(frameon=False)
    _logits(right, rows)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _logits(axes: Axes, rows: pl.DataFrame) -> None:
    batch = int(rows["batch"].to_numpy().max())
    first = rows.filter((pl.col("batch") == batch) & (pl.col("seed") == rows["seed"].min()))
    for row in first.iter_rows(named=True):
        for layer, values in enumerate(zip(*row["logits"], strict=True), 1):
            style, name = ("-.", "-", "--", ":")[layer % 4], str(row["optimizer"])
            label = f"{name}, layer {layer}" if name == "AdamW" or layer == 1 else None
            axes.plot(row["evaluated"], values, style, color=COLORS[row["optimizer"]], label=label)
    axes.set(yscale="log", xlabel="step", ylabel="largest |attention logit|")
    axes.set_title(f"Attention logits at batch {batch:,}, first seed", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
