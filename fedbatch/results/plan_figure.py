"""The picture of a plan: noise of the mean against the batch, a line for each number of rounds."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from fedbatch.results.plan import Plan

COLOURS = ("#56B4E9", "#009E73", "#0072B2", "#CC79A7", "#E69F00")  # Okabe and Ito
MARK, SAMPLING = "#D55E00", "#1A1A1A"


def save_plan_figure(plan: Plan, path: Path) -> None:
    """Draw the noise that one target needs, the sampling noise, the knee, the config and the choice."""
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axes = figure.subplots()
    counts = sorted({row.rounds for row in plan.grid})
    for count, color in zip(counts, COLOURS, strict=False):
        rows = [row for row in plan.grid if row.rounds == count]
        own = count == plan.rounds
        label = f"{count:,} rounds{' (T)' if own else ''}"
        noise = [row.mean_noise for row in rows]
        axes.plot([row.batch for row in rows], noise, "o-", color=color, ms=4, lw=2.4 if own else 1.2, label=label)
    batches = np.array([row.batch for row in plan.here])
    sampling = [row.sampling_noise(plan.spread, plan.size) for row in plan.here]
    axes.plot(batches, sampling, "--", color=SAMPLING, lw=1.2, label=f"sampling, spread {plan.spread:.2g}")
    axes.axvline(plan.knee, color="0.6", lw=1, ls=":", label="knee, N sqrt(epsilon / T)")
    axes.plot(
        plan.configured.batch, plan.configured.mean_noise, "s", mfc="white", mec=MARK, ms=11, ls="", label="the config"
    )
    axes.plot(plan.choice.batch, plan.choice.mean_noise, "*", color=MARK, ms=13, zorder=5, ls="", label="the choice")
    least = min(row.mean_noise for row in plan.grid)
    axes.set(xscale="log", yscale="log")
    axes.set_ylim(bottom=max(min(sampling), least / 3) / 1.3)  # sampling far below would take most of the picture
    axes.set(xlabel=f"batch: {plan.unit}s a round", ylabel="noise of the mean, sigma C / B, of a coordinate")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(LogLocator(subs=()))
    title = f"what epsilon {plan.target_epsilon:g} takes, of {plan.units:,} {plan.unit}s at delta {plan.delta:.2g}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=144)
