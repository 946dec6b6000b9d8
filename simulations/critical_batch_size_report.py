"""Table and figures of critical_batch_size.py, from its rows alone."""

import math
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy import stats

from simulations.tables import table

COLORS = "#000000 #E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7 #999999 #332288 #117733 #882255".split()
MARKERS = "osD^v<>Ph*Xd"


def markdown(fits: pl.DataFrame, runs: pl.DataFrame) -> str:
    """A row for every task and goal, and how well the noise scale predicts."""
    lines = []
    for row in fits.iter_rows(named=True):
        interval = f"{row['b_crit']:,.0f} ({row['b_crit_low']:,.0f} to {row['b_crit_high']:,.0f})"
        noise = f"{row['b_noise']:,.0f} +- {row['b_noise_se']:,.0f}"
        numbers = [
            f"{row['b_start']:,.0f}",
            f"{row['s_min']:,.1f}",
            f"{row['e_min']:,.0f}",
            f"{row['b_noise'] / row['b_crit']:.1f}",
        ]
        missed = f"{row['unreached']}" if row["unreached"] else ""
        lines.append([row["task"], f"{row['goal']:g}", interval, noise, *numbers, missed])
    headings = [
        "task",
        "goal",
        "B_crit (90 %)",
        "B_simple at the goal",
        "at the start",
        "S_min",
        "E_min",
        "B_simple / B_crit",
        "runs short of it",
    ]
    return f"{table(headings, lines)}\n{prediction(fits)}\n{temperature(runs)}\n"


def prediction(fits: pl.DataFrame) -> str:
    """Correlation of the logarithms with a bootstrap interval over tasks, and the factor between the two sizes."""
    rows = fits.filter(pl.col("task") != "noisy quadratic")
    x, y = (np.log(rows[name].to_numpy()) for name in ("b_noise", "b_crit"))
    tasks = rows["task"].to_numpy()
    names = np.unique(tasks)
    if len(names) < 3:
        return "Fewer than three tasks: no correlation."
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        chosen = rng.choice(names, len(names))
        index = np.concatenate([np.flatnonzero(tasks == name) for name in chosen])
        if np.ptp(x[index]) > 0:
            draws.append(float(np.corrcoef(x[index], y[index])[0, 1] ** 2))
    low, high = np.quantile(draws, [0.05, 0.95])
    without = {name: float(np.corrcoef(x[tasks != name], y[tasks != name])[0, 1] ** 2) for name in names}
    least, most = min(without, key=lambda name: without[name]), max(without, key=lambda name: without[name])
    close = [int((np.abs(x - y) < math.log(factor)).sum()) for factor in (2, 3)]
    ratio = np.exp(x - y)
    about = 1 - ((y - x) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    decades = np.ptp(y) / math.log(10)
    return (
        f"{len(rows)} points of {len(names)} tasks over {decades:.1f} decades of B_crit: r^2 of the logarithms "
        f"{np.corrcoef(x, y)[0, 1] ** 2:.2f} (90 % over tasks: {low:.2f} to {high:.2f}), about the line of equality "
        f"{about:.2f}; B_simple / B_crit has the median {np.median(ratio):.1f} and lies between {ratio.min():.1f} and "
        f"{ratio.max():.1f}; {close[0]} points lie within a factor of 2 and {close[1]} within 3. With one task "
        f"left out, r^2 is {without[least]:.2f} (without {least}) to {without[most]:.2f} (without {most}).\n"
    )


def temperature(runs: pl.DataFrame) -> str:
    """Slope of log B_simple against log(lr / B) at equal loss, within tasks and batches, from all rates tried."""
    slopes = []
    tried = runs.filter(pl.col("b_noise").is_finite() & (pl.col("b_noise") > 0) & (pl.col("task") != "noisy quadratic"))
    for _, cell in tried.group_by("task", "goal", "batch"):
        x, y = np.log(cell["rate"].to_numpy()), np.log(cell["b_noise"].to_numpy())
        if len(np.unique(cell["rate"])) >= 3:
            slopes.append(float(stats.linregress(x, y).slope))
    if not slopes:
        return "Too few learning rates for the slope against temperature."
    low, middle, high = np.quantile(slopes, [0.25, 0.5, 0.75])
    return (
        f"Temperature: at equal loss and batch, B_simple goes as lr^{middle:.2f} (median of {len(slopes)} cells; "
        f"quartiles {low:.2f} and {high:.2f}); the small-step theory says lr^-1.\n"
    )


def save_figure(fits: pl.DataFrame, path: Path) -> None:
    """B_simple against B_crit of all tasks and goals."""
    figure = Figure(figsize=(9.5, 6), layout="constrained")
    axes = figure.subplots()
    for index, (task,) in enumerate(fits.select("task").unique(maintain_order=True).iter_rows()):
        own = fits.filter(pl.col("task") == task)
        middle, low, high = (own[name].to_numpy() for name in ("b_crit", "b_crit_low", "b_crit_high"))
        noise, color = own["b_noise"].to_numpy(), COLORS[index % len(COLORS)]
        bars = [middle - low, np.minimum(high, 100 * middle) - middle]
        axes.errorbar(noise, middle, yerr=bars, xerr=own["b_noise_se"].to_numpy(), fmt="none", color=color, capsize=3)
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(noise, middle, marker, color=color, label=task, markersize=7, markeredgecolor="black")
    ends = np.array([fits["b_crit"].to_numpy().min() / 3, fits["b_noise"].to_numpy().max() * 3])
    axes.plot(ends, ends, color="#444444", linewidth=1, label="equal")
    axes.fill_between(ends, ends / 10, ends, color="#0072B2", alpha=0.08, lw=0, label="B_simple up to ten times B_crit")
    axes.set(xscale="log", yscale="log", xlabel="noise scale B_simple at the goal", ylabel="critical batch size B_crit")
    seeds = fits["seeds"].to_numpy().min()
    title = f"Does the noise scale predict the critical batch size?\n{seeds} seeds or more; bars: 90 % of the fit"
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def save_fronts(fits: pl.DataFrame, runs: pl.DataFrame, path: Path) -> None:
    """Examples against steps of every task at its lowest goal, with the fitted hyperbola."""
    tasks = fits["task"].unique(maintain_order=True).to_list()
    columns = min(len(tasks), 4)
    figure = Figure(figsize=(3.1 * columns, 2.8 * math.ceil(len(tasks) / columns)), layout="constrained")
    axes = figure.subplots(math.ceil(len(tasks) / columns), columns, squeeze=False).flat
    for ax, task in zip(axes, tasks, strict=False):
        fitted = fits.filter(pl.col("task") == task).row(-1, named=True)
        own = runs.filter((pl.col("task") == task) & (pl.col("goal") == fitted["goal"]) & ~pl.col("tuning"))
        steps, sizes = own["steps"].to_numpy(), own["batch"].to_numpy() * own["tokens"].to_numpy()
        ax.plot(steps, steps * sizes, "o", color="#D55E00", markersize=4)
        curve = fitted["s_min"] * (1 + np.geomspace(0.01, 100, 200))
        ax.plot(curve, fitted["e_min"] / (1 - fitted["s_min"] / curve), color="#0072B2")
        ax.set(xscale="log", yscale="log", title=f"{task}, loss {fitted['goal']:g}")
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.25)
    for ax in list(axes)[len(tasks) :]:
        ax.set_visible(False)
    figure.supxlabel("steps S")
    figure.supylabel("examples or tokens E")
    figure.savefig(path, dpi=110)
