"""Tables, figure and extrapolation of dp_accuracy.py, from its rows alone."""

import math
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from simulations.dp_accuracy_cells import ADAM, CLIPPED, FREE, UNPROTECTED
from simulations.tables import table

REFERENCES = (CLIPPED, FREE, ADAM)
COLORS = ("#88c0e0", "#3f8fc9", "#1a5a99", "#0b2545")
MARGIN = 0.01
"""What accuracy may be given up for privacy when it is paid in clients."""


def interval(values: pl.Series) -> tuple[float, float]:
    """Mean over seeds, and half the width of its 95 % interval by Student's t; infinite for one seed.

    >>> [round(x, 3) for x in interval(pl.Series([1.0, 2.0, 3.0]))]
    [2.0, 2.484]
    """
    numbers = values.to_numpy()
    if len(numbers) < 2:
        return float(numbers.mean()), math.inf
    error = numbers.std(ddof=1) / math.sqrt(len(numbers))
    return float(numbers.mean()), float(stats.t.ppf(0.975, len(numbers) - 1) * error)


def mean_accuracy(found: pl.DataFrame, part: str, private: bool) -> pl.DataFrame:
    """Columns ``level``, ``batch``, ``rounds`` and mean ``accuracy`` of a part's private cells, or of the others."""
    rows = found.filter(pl.col("part") == part, pl.col("level").is_in(UNPROTECTED) != private)
    return rows.group_by("level", "batch", "rounds", maintain_order=True).agg(pl.col("accuracy").mean())


def clients_goal(found: pl.DataFrame) -> float:
    """The best accuracy of the fewest clients without privacy, whatever the optimizer and rounds, less the margin."""
    return float(mean_accuracy(found, "clients", False)["accuracy"].to_numpy().max()) - MARGIN


def enough_clients(found: pl.DataFrame) -> float:
    """The population at which private runs should reach the goal: a line in log P through the two largest.

    Infinite where accuracy does not grow. Within the populations that were run, the line between two of them.
    """
    rows, goal = mean_accuracy(found, "clients", True), clients_goal(found)
    logs, accuracies = np.log(rows["batch"].to_numpy()), rows["accuracy"].to_numpy()
    above = int(np.argmax(accuracies >= goal)) if (accuracies >= goal).any() else len(logs) - 1
    last = max(above, 1)
    slope = (accuracies[last] - accuracies[last - 1]) / (logs[last] - logs[last - 1])
    return math.inf if slope <= 0 else float(np.exp(logs[last] + (goal - accuracies[last]) / slope))


def markdown(found: pl.DataFrame) -> str:
    """The grid in one table, all cells part by part, and what the extrapolation said."""
    text = "Mean test accuracy in %, and half of the 95 % interval of the mean over seeds (Student's t).\n\n"
    text += "### Accuracy by batch and epsilon\n\n" + grid_table(found)
    for part in found["part"].unique(maintain_order=True):
        text += f"\n### {part[0].upper() + part[1:]}\n\n" + part_table(found.filter(pl.col("part") == part))
    return text + "\n" + clients_sentence(found)


def grid_table(found: pl.DataFrame) -> str:
    """One line a batch, one column a level of privacy."""
    rows = found.filter(pl.col("part") == "grid")
    levels = rows["level"].unique(maintain_order=True).to_list()
    lines = []
    for (batch,), own in rows.group_by("batch", maintain_order=True):
        cells = [spread(own.filter(pl.col("level") == level)) for level in levels]
        lines.append([f"{batch:,}", *cells])
    names = [level if level in REFERENCES else f"epsilon {level}" for level in levels]
    return table(["global batch", *names], lines)


def part_table(rows: pl.DataFrame) -> str:
    """One line a cell, with noise, rate, and what tuning costs."""
    lines = []
    cells = rows.partition_by("name", "level", "batch", "rounds", maintain_order=True)
    for cell in cells:
        name, level, batch, rounds = cell.select("name", "level", "batch", "rounds").row(0)
        sigma, total = cell["noise_multiplier"][0], cell["epsilon_with_trials"][0]
        numbers = ["-" if sigma is None else f"{sigma:.3g}", f"{cell['rate'][0]:g}", f"{cell['trials'][0]}"]
        cost = "-" if total is None else f"{total:.2f}"
        lines.append([name, level, f"{batch:,}", f"{rounds}", spread(cell), *numbers, cost])
    headings = ["cell", "epsilon", "batch", "rounds", "test accuracy %", "noise multiplier", "rate", "trials"]
    return table([*headings, "epsilon of trials and run"], lines)


def spread(cell: pl.DataFrame) -> str:
    """Accuracy of a cell's finished runs in percent with its interval, and how many failed."""
    done = cell.filter(pl.col("status") == "finished")
    failed = f" ({cell.height - done.height} failed)" if done.height < cell.height else ""
    if done.is_empty():
        return f"-{failed}"
    mean, half = interval(100 * done["accuracy"])
    return f"{mean:.1f} +- {half:.1f}{failed}"


def clients_sentence(found: pl.DataFrame) -> str:
    """The goal, the population that should reach it, and what the check found."""
    check = found.filter(pl.col("part") == "clients, check")
    goal, wanted = 100 * clients_goal(found), enough_clients(found)
    reached = 100 * float(check["accuracy"].to_numpy().mean())
    predicted = "no number of clients" if math.isinf(wanted) else f"{wanted:,.0f} clients"
    return f"Goal {goal:.1f} %: predicted at {predicted}; {int(check['batch'][0]):,} clients reach {reached:.1f} %.\n"


def save_figure(found: pl.DataFrame, path: Path) -> None:
    """Accuracy against epsilon, one line a batch with its interval, and the references at the right."""
    rows = found.filter((pl.col("part") == "grid") & (pl.col("status") == "finished"))
    levels = [level for level in rows["level"].unique(maintain_order=True) if level not in REFERENCES]
    places = {level: float(np.log2(float(level))) for level in levels}
    right = max(places.values())
    references = {level: right + 1.1 + 0.9 * i for i, level in enumerate(REFERENCES)}
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    ax = figure.subplots()
    batches = rows["batch"].unique(maintain_order=True).to_list()
    for number, (color, batch) in enumerate(zip(COLORS, batches, strict=False)):
        own, beside = rows.filter(pl.col("batch") == batch), 0.16 * (number - (len(batches) - 1) / 2)
        _line(ax, own, places, f"{batch:,}", color)
        _levels(ax, own, {level: place + beside for level, place in references.items()}, color)
    ax.axvline(right + 0.55, color="gray", linewidth=0.8)
    shown = {CLIPPED: "clipped,\nno noise", FREE: "not private,\nSGD", ADAM: "not private,\nAdam"}
    ticks = {
        **{place: level for level, place in places.items()},
        **{place: shown[level] for level, place in references.items()},
    }
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(xlabel="epsilon", ylabel="test accuracy %", title=_title(rows))
    ax.grid(alpha=0.25)
    ax.legend(title="global batch", loc="lower right", reverse=True)
    figure.savefig(path, dpi=110)


def _line(ax: Axes, rows: pl.DataFrame, places: dict[str, float], label: str, color: str) -> None:
    cells = [interval(100 * rows.filter(pl.col("level") == level)["accuracy"]) for level in places]
    means, halves = (np.array(column) for column in zip(*cells, strict=True))
    x = list(places.values())
    ax.plot(x, means, color=color, marker="o", label=label)
    ax.fill_between(x, means - halves, means + halves, color=color, alpha=0.2, linewidth=0)


def _levels(ax: Axes, rows: pl.DataFrame, places: dict[str, float], color: str) -> None:
    for level, place in places.items():
        mean, half = interval(100 * rows.filter(pl.col("level") == level)["accuracy"])
        ends = [place - 0.08, place + 0.08]
        ax.plot(ends, [mean, mean], color=color, linewidth=2)
        ax.fill_between(ends, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)


def _title(rows: pl.DataFrame) -> str:
    return f"Accuracy at equal epsilon, {rows['rounds'][0]} rounds (shaded: 95 % interval of the mean)"
