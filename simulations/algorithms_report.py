"""Table and figure of algorithms.py, from its rows alone."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.figure import Figure

from simulations.tables import spread, table


def first_at(rows: pl.DataFrame, target: float) -> pl.DataFrame:
    """Rounds, megabytes and simulated seconds at the first evaluation that reaches the target; null where none did."""
    hit = pl.col("test_accuracy") >= target
    megabytes = (pl.col("bytes_up") + pl.col("bytes_down")) / 1e6
    costs = {"rounds": pl.col("rounds"), "MB": megabytes, "seconds": pl.col("simulated_seconds")}
    found = [cost.filter(hit).first().cast(pl.Float64).alias(name) for name, cost in costs.items()]
    return rows.group_by("seed", maintain_order=True).agg(*found)


def markdown(rows: pl.DataFrame, target: float) -> str:
    """Costs to the target, and what the end is like, by algorithm: mean and spread over seeds."""
    lines = []
    for (name,), own in rows.group_by("algorithm", maintain_order=True):
        costs = first_at(own, target)
        ends = own.group_by("seed", maintain_order=True).tail(1)
        cells = [spread(costs[cost].fill_null(np.nan), ",.3g") for cost in ("rounds", "MB", "seconds")]
        scores = [100 * ends[c] for c in ("test_accuracy", "client_accuracy_p50", "client_accuracy_p5")]
        noise = spread(own.filter(pl.col("rounds") == own["rounds"].max())["noise_scale"], ".3g")
        rate = float(own["client_lr"][0])
        lines.append([str(name), f"{rate:g}", *cells, *(spread(score, ".1f") for score in scores), noise])
    goal = f"to {target:.0%}"
    heads = [f"rounds {goal}", f"MB {goal}", f"simulated s {goal}", "test accuracy, %", "median client, %"]
    return table(["", "client lr", *heads, "5th percentile, %", "noise scale, clients"], lines)


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Accuracy of the global model over rounds and over bytes, and of clients on their own data; means over seeds."""
    figure = Figure(figsize=(11.5, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    names = rows["algorithm"].unique(maintain_order=True)
    for index, name in enumerate(names):
        own = rows.filter(pl.col("algorithm") == name).with_columns(
            mb=(pl.col("bytes_up") + pl.col("bytes_down")) / 1e6
        )
        shown = ("mb", "test_accuracy", "client_accuracy_p50")
        mean = own.group_by("rounds", maintain_order=True).agg(pl.col(shown).mean())
        for axes, x, y in zip(
            panels,
            ("rounds", "mb", "rounds"),
            ("test_accuracy", "test_accuracy", "client_accuracy_p50"),
            strict=True,
        ):
            axes.plot(mean[x], 100 * mean[y], color=colormaps["tab10"](index), lw=1.3, label=name)
    panels[0].set(xlabel="rounds", ylabel="test accuracy, %", title="The global model")
    panels[1].set(xlabel="MB sent, all clients", ylabel="test accuracy, %", title="The global model", xscale="log")
    panels[2].set(xlabel="rounds", ylabel="accuracy, %", title="The median client, own data, own model")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
