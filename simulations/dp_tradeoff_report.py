"""Tables and figure of dp_tradeoff.py, from its rows alone."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Noise = Sequence[dict[str, float]]
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
EMPTY = "-"


def markdown(table: pl.DataFrame, noise: Noise, examples: int, rounds: int) -> str:
    """Mean and standard deviation over seeds of every cell, and the noise each batch needs."""
    lines = []
    for part in table["part"].unique(maintain_order=True):
        rows = table.filter(pl.col("part") == part)
        lines += [f"### {part.capitalize()}", ""]
        lines += ["| | epsilon | batch | test accuracy % | noise multiplier | weight norm | lr | seeds |"]
        lines += ["|---" * 8 + "|"]
        for (name, epsilon), cell in rows.group_by("name", "epsilon", maintain_order=True):
            lines.append("| " + " | ".join(_row(str(name), float(epsilon), cell)) + " |")
        lines.append("")
    lines += [f"### Noise of the mean, sigma / B, for N = {examples:,} and {rounds} rounds", ""]
    lines += ["| epsilon | knee N sqrt(epsilon / T) | batch: sigma / B |", "|---|---|---|"]
    for epsilon in sorted({row["epsilon"] for row in noise}):
        values = [f"{row['batch']:,.0f}: {row['ratio']:.2e}" for row in noise if row["epsilon"] == epsilon]
        lines.append(f"| {epsilon:g} | {knee(examples, rounds, epsilon):,.0f} | {', '.join(values)} |")
    return "\n".join(lines) + "\n"


def knee(examples: int, rounds: int, epsilon: float) -> float:
    """The batch up to which sigma / B falls (McKenna et al. 2025)."""
    return examples * math.sqrt(epsilon / rounds)


def _row(name: str, epsilon: float, cell: pl.DataFrame) -> list[str]:
    done = cell.filter(pl.col("status") == "finished")
    failed = f" ({cell.height - done.height} failed)" if done.height < cell.height else ""
    limit = "none" if math.isinf(epsilon) else f"{epsilon:g}"
    start = [name, limit, f"{cell['batch'][0]:,.0f}"]
    if done.is_empty():
        return [*start, *[EMPTY] * 4, f"{cell.height}{failed}"]
    accuracy = 100 * done["accuracy"].to_numpy()
    sigma = done["noise_multiplier"][0] if "noise_multiplier" in done.columns else None
    return [
        *start,
        f"{accuracy.mean():.1f} +- {accuracy.std(ddof=min(1, len(accuracy) - 1)):.1f}",
        EMPTY if sigma is None or math.isinf(epsilon) else f"{sigma:.2f}",
        f"{float(done['weight_norm'].to_numpy().mean()):.1f}",
        f"{done['rate'][0]:g}",
        f"{cell.height}{failed}",
    ]


def save_figure(table: pl.DataFrame, noise: Noise, examples: int, rounds: int, path: Path) -> None:
    """Accuracy against epsilon and against batch, noise of the mean against batch, signal to noise over rounds."""
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    axes = figure.subplots(2, 2)
    batches = table.filter((pl.col("part") == "batch") & (pl.col("status") == "finished"))
    _pareto(axes[0, 0], batches)
    _by_batch(axes[0, 1], batches)
    _noise(axes[1, 0], noise, examples, rounds)
    _signal(axes[1, 1], batches)
    for ax in axes.flat:
        ax.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def _pareto(ax: Axes, rows: pl.DataFrame) -> None:
    for color, (batch,) in zip(COLORS, rows.select("batch").unique(maintain_order=True).iter_rows(), strict=False):
        own = rows.filter(pl.col("batch") == batch)
        private = own.filter(pl.col("epsilon").is_finite())
        _with_spread(ax, private, "epsilon", f"batch {batch:,.0f}", color)
        free = own.filter(pl.col("epsilon").is_infinite())["accuracy"].to_numpy()
        if len(free):
            ax.axhline(100 * float(free.mean()), color=color, linestyle=":", linewidth=1)
    ax.set(xscale="log", xlabel="epsilon (examples; fixed rounds)", ylabel="test accuracy %")
    epsilons = sorted(e for e in rows["epsilon"].unique() if math.isfinite(e))
    ax.set_xticks(epsilons, [f"{e:g}" for e in epsilons])
    ax.minorticks_off()
    ax.set_title("Larger batches, better accuracy at the same epsilon\n(dotted: without privacy)", fontsize=10)
    ax.legend(fontsize=8)


def _by_batch(ax: Axes, rows: pl.DataFrame) -> None:
    for color, (epsilon,) in zip(COLORS, rows.select("epsilon").unique(maintain_order=True).iter_rows(), strict=False):
        label = "no privacy" if math.isinf(epsilon) else f"epsilon {epsilon:g}"
        _with_spread(ax, rows.filter(pl.col("epsilon") == epsilon), "batch", label, color)
    ax.set(xscale="log", xlabel="global batch (examples)", ylabel="test accuracy %")
    ax.set_title("The same runs by batch", fontsize=10)
    ax.legend(fontsize=8)


def _with_spread(ax: Axes, rows: pl.DataFrame, x: str, label: str, color: str) -> None:
    mean, spread = pl.col("accuracy").mean().alias("mean"), pl.col("accuracy").std().fill_null(0).alias("std")
    points = rows.group_by(x).agg(mean, spread).sort(x)
    ax.errorbar(points[x], 100 * points["mean"], 100 * points["std"], label=label, color=color, marker="o", capsize=3)


def _noise(ax: Axes, noise: Noise, examples: int, rounds: int) -> None:
    for color, epsilon in zip(COLORS, sorted({row["epsilon"] for row in noise}), strict=False):
        own = [row for row in noise if row["epsilon"] == epsilon]
        batches, ratios = [row["batch"] for row in own], [row["ratio"] for row in own]
        ax.plot(batches, ratios, color=color, marker=".", label=f"epsilon {epsilon:g}")
        ax.axvline(knee(examples, rounds, epsilon), color=color, linestyle="--", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="global batch (examples)", ylabel="noise of the mean, sigma / B")
    ax.set_title("What a larger batch saves in noise\n(dashed: N sqrt(epsilon / T))", fontsize=10)
    ax.legend(fontsize=8)


def _signal(ax: Axes, rows: pl.DataFrame) -> None:
    private = rows.filter(pl.col("epsilon").is_finite())
    middle = sorted(private["epsilon"].unique())[len(private["epsilon"].unique()) // 2]
    own = private.filter((pl.col("epsilon") == middle) & (pl.col("seed") == private["seed"].min()))
    for color, row in zip(COLORS, own.iter_rows(named=True), strict=False):
        values = np.array(row["snr"], dtype=float)
        window = max(1, len(values) // 10)
        smooth = np.sqrt(np.convolve(values**2, np.ones(window) / window, mode="valid"))
        ax.plot(np.arange(len(smooth)) + window, smooth, color=color, label=f"batch {row['batch']:,.0f}")
    ax.set(yscale="log", xlabel="round", ylabel="estimated |gradient| / |noise|")
    ax.set_title(
        f"Signal to noise at epsilon {middle:g}\n(from released values, averaged over {window} rounds)", fontsize=10
    )
    ax.legend(fontsize=8)
