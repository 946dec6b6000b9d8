"""Tables and figure of client_counts.py, from its rows alone."""

from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from fedbatch.batch.critical import CriticalBatch, fit_critical_batch_size

Targets = dict[str, float]
Floats = npt.NDArray[np.float64]
Fits = dict[tuple[str, str, str], tuple[CriticalBatch | None, Floats]]
COLORS = {"FedSGD": "#0072B2", "FedAvg": "#D55E00", "FedAvgM": "#009E73", "FedAdam": "#CC79A7"}
PERCENTILES = (5, 25, 50, 75, 95)


def chosen(table: pl.DataFrame, method: str, rule: str) -> pl.DataFrame:
    """Rows of a method and rule."""
    return table.filter((pl.col("method") == method) & (pl.col("rule") == rule))


def fits(table: pl.DataFrame, targets: Targets, tuned_at: int) -> Fits:
    """For each method, rule and target: the fit over cohort sizes whose every run got there, and noise scales.

    A size of which only the lucky seeds reached the target would pull the fit down, and so is left out. Noise scales
    are those of cohorts of ``tuned_at`` and more: smaller ones do not identify |mean|^2 in the rounds to a target.
    """
    found: Fits = {}
    for method, rule, target in product(COLORS, table["rule"].unique(maintain_order=True), targets):
        rounds = pl.col(f"{target}_rounds")
        rows = chosen(table, method, rule).filter(rounds.is_not_null().all().over("cohort_size"))
        enough = rows["cohort_size"].n_unique() >= 3
        fit = fit_critical_batch_size(rows["cohort_size"], rows[f"{target}_rounds"]) if enough else None
        found[method, rule, target] = fit, rows.filter(pl.col("cohort_size") >= tuned_at)[f"{target}_noise"].to_numpy()
    return found


def markdown(table: pl.DataFrame, targets: Targets) -> str:
    """Mean and spread over seeds of each method, rule and cohort size."""
    low, high = targets.values()
    columns: dict[str, tuple[str, float, str]] = {
        f"rounds to {low:.0%}": ("low_rounds", 1, ".1f"),
        f"rounds to {high:.0%}": ("high_rounds", 1, ".1f"),
    }
    columns |= {"examples": ("high_examples", 1, ",.0f"), "MB": ("high_bytes", 1e-6, ",.0f")}
    columns |= {"simulated s": ("high_simulated_seconds", 1, ".1f"), "s": ("high_measured_seconds", 1, ".2f")}
    columns |= {"train loss": ("train_loss", 1, ".3f"), "test %": ("test_accuracy", 100, ".1f")}
    columns |= {f"p{q} %": (f"client_accuracy_p{q}", 100, ".0f") for q in PERCENTILES}
    columns |= {"update norm": ("update_norm", 1, ".3g"), "mean cosine": ("mean_cosine", 1, ".3f")}
    head = ["method", "rule", "M", *columns, f"reached {high:.0%}", "failed"]
    lines = [f"Examples, MB and seconds are to {high:.0%}, over the runs that reached it.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (method, rule, size), rows in table.group_by("method", "rule", "cohort_size", maintain_order=True):
        cells = [mean_and_spread(rows[name] * scale, form) for name, scale, form in columns.values()]
        cells += [f"{rows['high_rounds'].count()}/{len(rows)}", f"{rows['failed'].sum()}/{len(rows)}"]
        lines.append(f"| {' | '.join([str(method), str(rule), str(size), *cells])} |")
    return "\n".join(lines) + "\n"


def mean_and_spread(values: pl.Series, form: str) -> str:
    """Mean ± standard deviation of what is known."""
    known = values.drop_nulls().drop_nans().to_numpy()
    spread = f" ± {known.std(ddof=1):{form}}" if len(known) > 1 else ""
    return f"{known.mean():{form}}{spread}" if len(known) else "-"


def fits_markdown(table: pl.DataFrame, targets: Targets, tuned_at: int) -> str:
    """M_crit with its 90 % interval beside the measured noise scale."""
    lines = ["| method | rule | target | R_min | M_crit | 90 % interval | M_noise, median (range) |", "|---" * 7 + "|"]
    for (method, rule, target), (fit, noise) in fits(table, targets, tuned_at).items():
        cells = [method, rule, f"{targets[target]:.0%}", "-", "-", "-", "-"]
        if fit:
            low, high = fit.b_crit_interval
            cells[3:6] = f"{fit.s_min:.1f}", f"{fit.b_crit:.1f}", f"{low:.1f} to {high:.1f}"
        if len(noise):
            cells[6] = f"{np.median(noise):.1f} ({noise.min():.1f} to {noise.max():.1f})"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def trends_markdown(table: pl.DataFrame, tuned_at: int) -> str:
    """Log-log slopes over M, below and above the size of the tuning, and what the largest cohort ends at."""
    head = ["method", "rule", *(f"{name}, M {side} {tuned_at}" for name in ("rounds", "norm") for side in "≤≥")]
    head += ["test % at the largest M", "best mean, at M"]
    lines = ["Log-log slopes over M: rounds to the low target, and norm of the mean update.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (method, rule), rows in table.group_by("method", "rule", maintain_order=True):
        sides = (rows.filter(pl.col("cohort_size") <= tuned_at), rows.filter(pl.col("cohort_size") >= tuned_at))
        cells = [slope(side, name) for name in ("low_rounds", "update_norm") for side in sides]
        means = (
            rows.drop_nulls("test_accuracy")
            .group_by("cohort_size")
            .agg(pl.col("test_accuracy").mean() * 100)
            .sort("cohort_size")
        )
        size, best = means.row(means["test_accuracy"].arg_max() or 0)
        cells += [f"{means['test_accuracy'][-1]:.1f}", f"{best:.1f}, {size}"]
        lines.append(f"| {' | '.join([str(method), str(rule), *cells])} |")
    return "\n".join(lines) + "\n"


def slope(rows: pl.DataFrame, column: str) -> str:
    """Of log ``column`` over log M, over runs that have it."""
    known = rows.drop_nulls(column)
    if known["cohort_size"].n_unique() < 2:
        return "-"
    return f"{np.polyfit(np.log(known['cohort_size']), np.log(known[column]), 1)[0]:.2f}"


def save_figure(table: pl.DataFrame, targets: Targets, tuned_at: int, path: Path) -> None:
    """Four panels: rounds to target, accuracy by examples, clients' accuracies, update norms."""
    figure = Figure(figsize=(11.5, 8.5), layout="constrained")
    (rounds, examples), (clients, norms) = figure.subplots(2, 2)
    draw_rounds(rounds, table, targets, tuned_at)
    draw_examples(examples, table)
    draw_clients(clients, table)
    draw_norms(norms, table)
    for axes in (rounds, clients, norms):
        axes.set(xscale="log", xlabel="clients a round, M")
        axes.xaxis.set_major_locator(FixedLocator(sorted(table["cohort_size"].unique())))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    for axes in (rounds, examples, clients, norms):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (rounds, examples, norms):
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def draw_rounds(axes: Axes, table: pl.DataFrame, targets: Targets, tuned_at: int) -> None:
    """Rounds to the low target at a constant learning rate, with the fit, M_crit and M_noise on it."""
    known = table["cohort_size"].to_numpy()
    sizes = np.geomspace(known.min(), known.max(), 100)
    for method, color in COLORS.items():
        rows = chosen(table, method, "constant").drop_nulls("low_rounds")
        axes.plot(rows["cohort_size"], rows["low_rounds"], "o", color=color, ms=4, alpha=0.6, label=method)
        fit, noise = fits(table, targets, tuned_at)[method, "constant", "low"]
        if fit:
            axes.plot(sizes, fit.s_min * (1 + fit.b_crit / sizes), color=color, lw=1)
            for size, marker in ((fit.b_crit, "v"), (np.median(noise) if len(noise) else None, "D")):
                if size is not None and sizes[0] <= size <= sizes[-1]:
                    axes.plot(size, fit.s_min * (1 + fit.b_crit / size), marker, color=color, ms=9, mec="black")
    for marker, label in (("v", "$M_{crit}$ of the fit"), ("D", "measured $M_{noise}$")):
        axes.plot([], [], marker, color="white", mec="black", ms=9, label=label)
    axes.set(
        yscale="log", ylabel=f"rounds to {targets['low']:.0%} test accuracy", title="Constant rule: rounds, with fits"
    )
    axes.yaxis.set_major_locator(FixedLocator([2, 5, 10, 20, 50, 100]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_examples(axes: Axes, table: pl.DataFrame) -> None:
    """Test accuracy of FedAvg against examples, a line for each cohort size, mean over seeds."""
    sizes = sorted(table["cohort_size"].unique())
    for i, size in enumerate(sizes):
        rows = chosen(table, "FedAvg", "constant").filter(pl.col("cohort_size") == size).drop_nulls("curve_examples")
        if len(rows) and rows["curve_examples"].list.len().n_unique() == 1:
            examples, accuracy = (np.mean(rows[f"curve_{name}"].to_list(), axis=0) for name in ("examples", "accuracy"))
            axes.plot(examples, accuracy, color=colormaps["viridis"](i / len(sizes)), label=f"M = {size}")
    axes.set(
        xscale="log", xlabel="examples of all clients", ylabel="test accuracy", title="FedAvg, constant rule: examples"
    )


def draw_clients(axes: Axes, table: pl.DataFrame) -> None:
    """Percentiles over clients of FedAvg's accuracy on their own held-out examples."""
    rows = chosen(table, "FedAvg", "constant").group_by("cohort_size").agg(pl.col("^client.*$").mean())
    rows = rows.sort("cohort_size")
    for q, style in zip(PERCENTILES, (":", "--", "-", "--", ":"), strict=True):
        values = rows[f"client_accuracy_p{q}"]
        axes.plot(rows["cohort_size"], values, style, marker="o", ms=3, color=COLORS["FedAvg"])
        offset = (6, {75: -1, 95: 3}.get(q, -5))
        axes.annotate(f"p{q}", (rows["cohort_size"][-1], values[-1]), xytext=offset, textcoords="offset points")
    axes.set(
        ylabel="accuracy of a client on its own examples", title="FedAvg, constant rule, end of the run", ylim=(0, 1.05)
    )


def draw_norms(axes: Axes, table: pl.DataFrame) -> None:
    """Norm of the mean update at the end of the run against M, relative to the smallest cohort, with 1/sqrt(M)."""
    sizes = np.array(sorted(table["cohort_size"].unique()), dtype=float)
    for method, color in COLORS.items():
        runs = chosen(table, method, "constant").filter(pl.col("status") == "finished")
        rows = runs.group_by("cohort_size").agg(pl.col("update_norm").mean()).sort("cohort_size")
        if len(rows):
            norms = rows["update_norm"] / rows["update_norm"][0]
            axes.plot(rows["cohort_size"], norms, "o-", color=color, ms=4, label=method)
    axes.plot(sizes, (sizes / sizes[0]) ** -0.5, color="#888888", ls="--", label=r"$1/\sqrt{M}$")
    # Clients are drawn without replacement: the noise of a mean of all of them is nil.
    finite = np.sqrt((table["population"][0] - sizes) / sizes)
    axes.plot(sizes, finite / finite[0], color="#888888", ls=":", label="the same, drawn without replacement")
    axes.set(
        yscale="log",
        ylabel=f"norm of the mean update / that at M = {sizes[0]:.0f}",
        title="Constant rule: size of the mean update, end of the run",
    )
