"""Table and figure of critical_cohort.py, from its rows alone."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from fedbatch.batch.critical import CriticalBatch, fit_critical_batch_size
from simulations.critical_agreement import rms_factor
from simulations.tables import interval, spread, table

COLORS = {"FedSGD": "#0072B2", "local SGD": "#D55E00", "SGD and Nesterov": "#009E73", "AdamW and Nesterov": "#CC79A7"}
Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


def fit(cell: pl.DataFrame) -> CriticalBatch | None:
    """Of one method and partition, over cohorts whose every run arrived; None where fewer than three did.

    Sizes are those with the noise of clients drawn without replacement: 1/M - 1/N.
    """
    own = cell.filter(~pl.col("tuning")).filter(pl.col("steps").is_finite().all().over("cohort"))
    if own["cohort"].n_unique() < 3:
        return None
    sizes = 1 / (1 / own["cohort"].to_numpy() - 1 / own["population"].to_numpy())
    return fit_critical_batch_size(sizes, own["steps"].to_numpy())


def told(cell: pl.DataFrame) -> Triple:
    """Geometric mean over seeds, and its 90 % interval, of M_crit as single runs tell it."""
    known = cell.filter(pl.col("told").is_finite() & (pl.col("told") > 0))["told"].to_numpy()
    mean, low, high = interval(np.log(known))
    return math.exp(mean), math.exp(low), math.exp(high)


def speedup(cell: pl.DataFrame) -> Triple:
    """Rounds at the smallest cohort over those at the largest: geometric mean and interval, paired by seed."""
    own = cell.filter(~pl.col("tuning")).sort("seed")
    ends = [
        own.filter(pl.col("cohort") == size)["steps"].to_numpy() for size in (own["cohort"].min(), own["cohort"].max())
    ]
    ratios = np.log(ends[0] / ends[1])
    mean, low, high = interval(ratios[np.isfinite(ratios)])
    return math.exp(mean), math.exp(low), math.exp(high)


def shown(found: Triple) -> str:
    """A value and its interval."""
    value, low, high = found
    return f"{value:.3g} ({low:.3g} to {high:.3g})" if math.isfinite(high) else f"{value:.3g}"


def markdown(rows: pl.DataFrame) -> str:
    """Rounds by cohort, the fitted critical cohort and the one that is told, and how far they are apart."""
    cohorts = sorted(rows["cohort"].unique())
    lines, ratios = [], []
    for (method, split), cell in rows.group_by("method", "partition", maintain_order=True):
        own = cell.filter(~pl.col("tuning"))
        rounds = [spread(own.filter(pl.col("cohort") == size)["steps"], ".3g") for size in cohorts]
        found, guess = fit(cell), told(cell)
        fitted = "-" if found is None else shown((found.b_crit, *found.b_crit_interval))
        local = own["local_lr"][0]
        line = [str(method), str(split), "" if local is None else f"{local:.3g}", *rounds, shown(speedup(cell))]
        lines.append([*line, "-" if found is None else f"{found.s_min:.3g}", fitted, shown(guess)])
        if found is not None and math.isfinite(guess[0]):
            ratios.append(guess[0] / found.b_crit)
    heads = ["method", "clients", "local lr", *(f"rounds, M = {size}" for size in cohorts)]
    heads += [f"speed-up, {cohorts[0]} to {cohorts[-1]}", "R_min", "M_crit, search", "M_crit, one run"]
    most = cohorts[-1] / cohorts[0]
    goal = f"Rounds to a training loss of {rows['goal'][0]:g}; {most:g} x the clients."
    near = sum(abs(math.log(ratio)) <= math.log(2) for ratio in ratios)
    off = (
        f"Told over fitted: rms factor {rms_factor(ratios):.2f}, within 2 in {near} of {len(ratios)}." if ratios else ""
    )
    return f"{goal}\n\n{table(heads, lines)}\n{off}\n"


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Rounds by cohort with fits, a panel for each partition; and critical cohorts as fitted and as told."""
    splits = rows["partition"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    *panels, last = figure.subplots(1, len(splits) + 1)
    for axes, split in zip(panels, splits, strict=True):
        _rounds(axes, rows.filter(pl.col("partition") == split))
        axes.set_title(split, fontsize=10)
    panels[0].set(ylabel=f"rounds to a training loss of {rows['goal'][0]:g}")
    _critical(last, rows)
    for axes in (*panels, last):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, which="major")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _rounds(axes: Axes, rows: pl.DataFrame) -> None:
    cohorts = rows["cohort"].to_numpy()
    sizes = np.geomspace(cohorts.min(), cohorts.max(), 80)
    for (method,), cell in rows.group_by("method", maintain_order=True):
        own, color, found = cell.filter(~pl.col("tuning")), COLORS[str(method)], fit(cell)
        label = str(method) if own["steps"].is_finite().any() else f"{method}: did not arrive"
        axes.plot(own["cohort"], own["steps"], "o", color=color, ms=4, alpha=0.7, label=label)
        if found is not None:
            exact = 1 / sizes - 1 / float(own["population"][0])
            axes.plot(sizes, found.s_min + found.e_min * exact, color=color, lw=1)
    axes.set(xscale="log", yscale="log", xlabel="clients a round, M")
    axes.xaxis.set_major_locator(FixedLocator(sorted(rows["cohort"].unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator([10, 20, 50, 100, 200, 500, 1000]))
    axes.yaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())


def _critical(axes: Axes, rows: pl.DataFrame) -> None:
    names = []
    for place, ((method, split), cell) in enumerate(rows.group_by("method", "partition", maintain_order=True)):
        found, guess, color = fit(cell), told(cell), COLORS[str(method)]
        names.append(f"{method}\n{split}{'' if found else ': none'}")
        points = [] if found is None else [(found.b_crit, *found.b_crit_interval, "o", 0.12)]
        for value, low, high, marker, offset in [*points, (*guess, "D", -0.12)]:
            if math.isfinite(value):
                axes.plot(value, place + offset, marker, color=color, mec="black", ms=6)
                if low > 0 and math.isfinite(high):
                    axes.plot([low, high], [place + offset] * 2, color=color, lw=1.5)
    for marker, label in (("o", "by search"), ("D", "told by one run (seeds)")):
        axes.plot([], [], marker, color="white", mec="black", label=label)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="critical cohort, clients (90 % intervals)")
    axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_title("Critical cohort", fontsize=10)
