"""Table and figure of algorithms.py, from its rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib import colormaps
from matplotlib.figure import Figure

from simulations.tables import spread, table

BASE = "FedAvg"
SCORES = ("test_accuracy", "client_accuracy_p50")


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
    """Above what clients compute, below what they send: accuracies over rounds and over bytes, means over seeds."""
    figure = Figure(figsize=(11.5, 7.0), layout="constrained")
    names = rows["algorithm"].unique(maintain_order=True).to_list()
    compressed = [name for name in names if name.startswith(f"{BASE},")]
    grid = figure.subplots(2, 3)
    for panels, shown in zip(grid, ([n for n in names if n not in compressed], [BASE, *compressed]), strict=True):
        _row(panels, rows, shown)
    grid[0, 0].set_title("The global model")
    grid[0, 1].set_title("The global model, by bytes")
    grid[0, 2].set_title("The median client, own data, own model")
    figure.savefig(path, dpi=120)


def _row(panels: npt.NDArray[Any], rows: pl.DataFrame, names: Sequence[str]) -> None:
    """The same lines in three panels, with their names to the right of the last."""
    for index, name in enumerate(names):
        own = rows.filter(pl.col("algorithm") == name).with_columns(
            mb=(pl.col("bytes_up") + pl.col("bytes_down")) / 1e6
        )
        mean = own.group_by("rounds", maintain_order=True).agg(pl.col("mb", *SCORES).mean())
        style = {"color": "black", "lw": 2.0} if name == BASE else {"color": colormaps["tab10"](index - 1), "lw": 1.3}
        for axes, x, y in zip(panels, ("rounds", "mb", "rounds"), (SCORES[0], *SCORES), strict=True):
            axes.plot(mean[x], 100 * mean[y], label=name, **style)
    panels[0].set(xlabel="rounds", ylabel="test accuracy, %")
    panels[1].set(xlabel="MB sent, both ways, all clients", xscale="log")
    panels[2].set(xlabel="rounds", ylabel="accuracy, %")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[0].set_ylim(40, 86)
    panels[1].set_ylim(40, 86)
    panels[2].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
