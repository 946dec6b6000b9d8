"""Table and figure of optimizers.py, from its rows alone."""

from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {"AdamW": "#000000", "LARS": "#009E73", "LAMB": "#0072B2", "MERIT": "#D55E00"}
CLOSE = 1.01
"""A batch keeps the small batch's loss when its own is at most this many times as large."""


def markdown(table: pl.DataFrame) -> str:
    """Loss of every cell, the largest batch that keeps the loss, and the largest logit."""
    tokens, seeds = table["tokens"][0], table["seed"].n_unique()
    lines = [
        f"Validation loss in nats a character after {tokens:,} tokens, mean and standard deviation of {seeds} seed(s).",
        "",
    ]
    lines += ["| optimizer | batch | steps | lr | loss | largest attention logit at the end |", "|---" * 6 + "|"]
    for (name, batch), cell in table.group_by("optimizer", "batch", maintain_order=True):
        logits = [max(run[-1]) for run in cell["logits"] if len(run)]
        largest = f"{sum(logits) / len(logits):.1f}" if logits else "-"
        values = [str(name), f"{batch:,}", f"{cell['rounds'][0]:,}", f"{cell['rate'][0]:.2g}", _spread(cell), largest]
        lines.append("| " + " | ".join(values) + " |")
    lines += ["", "| optimizer | largest batch within 1 % of its own smallest | of the best optimizer's smallest |"]
    lines += ["|---" * 3 + "|"]
    means = _means(table)
    smallest = means.filter(pl.col("batch") == means["batch"].min())
    for name in COLORS:
        own = means.filter(pl.col("optimizer") == name)
        bars = float(own.sort("batch")["mean"][0]), float(smallest["mean"].min())
        lines.append(f"| {name} | " + " | ".join(_largest(own, CLOSE * bar) for bar in bars) + " |")
    return "\n".join(lines) + "\n"


def _spread(cell: pl.DataFrame) -> str:
    done = cell.filter(pl.col("status") == "finished")["loss"]
    failed = f" ({cell.height - len(done)} failed)" if len(done) < cell.height else ""
    return f"{done.mean():.3f} +- {done.std() or 0:.3f}{failed}" if len(done) else f"-{failed}"


def _means(table: pl.DataFrame) -> pl.DataFrame:
    """Mean and standard deviation of the loss by optimizer and batch; NaN where a run failed."""
    loss = pl.col("loss")
    return table.group_by("optimizer", "batch").agg(loss.mean().alias("mean"), loss.std().fill_null(0).alias("std"))


def _largest(own: pl.DataFrame, bar: float) -> str:
    within = own.filter(pl.col("mean") <= bar)["batch"]
    return f"{within.max():,}" if len(within) else "none"


def save_figure(table: pl.DataFrame, path: Path) -> None:
    """Loss against batch, and the largest logit of each layer over training at the largest batch."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    means = _means(table)
    for name, color in COLORS.items():
        own = means.filter(pl.col("optimizer") == name).sort("batch")
        left.errorbar(own["batch"], own["mean"], own["std"], color=color, label=name, marker="o", capsize=3)
    left.set(xscale="log", xlabel="global batch (sequences)", ylabel="validation loss (nats a character)")
    left.set_title(f"{table['tokens'][0]:,} tokens each, learning rate tuned for every point", fontsize=10)
    batches = sorted(table["batch"].unique())
    left.set_xticks(batches, [f"{batch:,}" for batch in batches])
    left.minorticks_off()
    left.legend(frameon=False)
    _logits(right, table)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _logits(axes: Axes, table: pl.DataFrame) -> None:
    batch = table["batch"].max()
    first = table.filter((pl.col("batch") == batch) & (pl.col("seed") == table["seed"].min()))
    for row in first.iter_rows(named=True):
        for layer, values in enumerate(zip(*row["logits"], strict=True)):
            style = ("-", "--", ":", "-.")[layer % 4]
            label = f"{row['optimizer']}, layer {layer + 1}" if row["optimizer"] == "AdamW" or not layer else None
            axes.plot(row["evaluated"], values, style, color=COLORS[row["optimizer"]], label=label)
    axes.set(yscale="log", xlabel="step", ylabel="largest |attention logit|")
    axes.set_title(f"Attention logits at batch {batch:,}, seed {table['seed'].min()}", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
