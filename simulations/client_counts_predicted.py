"""What one run of a small cohort says of the rounds that other cohorts need, against the rounds that they took."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from fedbatch.core.errors import ConfigError
from fedbatch.results.critical import critical
from fedbatch.results.critical_rows import curve_of, read
from simulations.tables import table

COLORS = {"FedSGD": "#0072B2", "FedAvg": "#D55E00", "FedAvgM": "#009E73", "FedAdam": "#CC79A7"}


def predicted(rows: pl.DataFrame, runs: Path, start: int, goals: Sequence[float]) -> list[dict[str, Any]]:
    """Predicted and measured rounds by method, seed, goal and cohort size.

    The law is about the rate that suits a cohort. So each size, the starting one too, stands with the rule for its rate
    that gets to the goal first.

    Args:
        rows: of the study's runs.
        runs: folder of the runs.
        start: clients of the run that predicts.
        goals: losses on examples of the training set.
    """
    found = []
    for (method, seed), own in rows.group_by("method", "seed", maintain_order=True):
        for goal in goals:
            best = {int(size): fastest(of, runs, goal) for (size,), of in own.group_by("cohort_size")}
            _, name = best[start]
            if name is None:
                continue
            said = critical(runs / name, [goal])
            for size, (measured, _) in sorted(best.items()):
                guess = said.predict(cohort=size)
                row = {"method": method, "seed": seed, "goal": goal, "cohort_size": size, "start": start}
                row |= {"predicted": guess.rounds, "low": guess.rounds_interval[0], "high": guess.rounds_interval[1]}
                found.append(row | {"measured": measured, "doubts": len(said.doubts)})
    return found


def fastest(rows: pl.DataFrame, runs: Path, goal: float) -> tuple[float, str | None]:
    """Fewest rounds to the goal among runs, and that run; NaN and None where none got there."""
    best: tuple[float, str | None] = math.nan, None
    for name in rows.filter(pl.col("status") == "finished")["run"].unique(maintain_order=True):
        try:
            falling = curve_of(runs / name, read(runs / name)).falling()
        except ConfigError:  # its loss never falls
            continue
        steps = falling.steps_to(goal) if goal < falling.losses[0] else math.nan
        if steps == steps and not best[0] <= steps:
            best = steps, name
    return best


def factors(rows: pl.DataFrame) -> np.ndarray:
    """Logarithms of measured over predicted rounds at cohorts that the predicting run did not have."""
    unseen = rows.filter((pl.col("cohort_size") != pl.col("start")) & pl.col("measured").is_not_nan())
    return np.log((unseen["measured"] / unseen["predicted"]).to_numpy())


def predicted_markdown(rows: pl.DataFrame) -> str:
    """Measured over predicted rounds by method and cohort, and how far they are from 1."""
    if rows.is_empty():
        return "No run of the starting cohort reached a goal.\n"
    sizes = sorted(rows["cohort_size"].unique())
    lines = []
    for (method, goal), own in rows.group_by("method", "goal", maintain_order=True):
        cells = []
        for size in sizes:
            there = own.filter((pl.col("cohort_size") == size) & pl.col("measured").is_not_nan())
            ratios = np.log((there["measured"] / there["predicted"]).to_numpy())
            cells.append(f"{math.exp(ratios.mean()):.2f} ({len(there)})" if len(there) else "-")
        off = factors(own)
        rms, within = math.exp(math.sqrt((off**2).mean())), (np.abs(off) <= math.log(1.5)).mean()
        lines.append([str(method), f"{goal:g}", *cells, f"{rms:.2f}", f"{within:.0%}"])
    start = rows["start"][0]
    told = (
        f"Measured over predicted rounds, told by the run with {start} clients; geometric means (seeds that got there)."
    )
    heads = ["method", "training loss", *(f"M = {size}" for size in sizes), "rms factor", "within 1.5"]
    return f"{told}\n\n{table(heads, lines)}"


def save_predicted(rows: pl.DataFrame, path: Path) -> None:
    """Measured rounds by cohort with the predictions of each seed, a panel for each method, the lowest goal."""
    figure = Figure(figsize=(11.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(COLORS), sharey=True)
    for axes, (method, color) in zip(panels, COLORS.items(), strict=True):
        own = rows.filter(pl.col("method") == method) if not rows.is_empty() else rows
        axes.set(xscale="log", yscale="log", title=method, xlabel="clients a round, M")
        if own.is_empty():
            continue
        own = own.filter(pl.col("goal") == own["goal"].min())
        for index, ((_,), seed) in enumerate(own.group_by("seed", maintain_order=True)):
            label = f"told by the run with {own['start'][0]} clients" if index == 0 else None
            axes.plot(seed["cohort_size"], seed["predicted"], color="#888888", lw=1, label=label)
        axes.plot(own["cohort_size"], own["measured"], "o", color=color, ms=4, label="measured")
        axes.xaxis.set_major_locator(FixedLocator(sorted(own["cohort_size"].unique())))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(FixedLocator([2, 5, 10, 20, 50, 100]))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    goal = min(rows["goal"]) if not rows.is_empty() else float("nan")
    panels[0].set(ylabel=f"rounds to a training loss of {goal:g}")
    figure.savefig(path, dpi=130)
