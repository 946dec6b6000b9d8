"""Width, depth and large batches: gradient diversity at initialisation, and the largest batch that costs no epochs.

    python -m simulations.width             everything, about a quarter of an hour of one core
    python -m simulations.width --quick     two depths, three draws, under two minutes

After Chen et al. 2018, of whom only the abstract is known to us: networks of equal size are compared (1) at
initialisation, closed forms beside measurements; (2) in training on digits, learning rate tuned for every batch: the
largest batch that reaches the loss within 1.2 times the smallest batch's epochs, and the noise scale at equal loss.
Finished runs are skipped. Writes docs/results/width.parquet, width_training.parquet, width.md, docs/figures/width.png.
"""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.diversity import Family, deep, diversity, two_layer
from simulations.steps_to_goal import Task, fit, of_task
from simulations.study import command
from simulations.tables import spread, table

SUMMARY = __doc__.splitlines()[0]
PARAMETERS = 16_384
SLACK = 1.2
COLORS = {"linear": "#000000", "tanh": "#0072B2", "relu, centred": "#D55E00", "relu": "#CC79A7", "residual": "#009E73"}
GOAL = 0.3
DIGITS = "dataset=digits", "server_optimizer=sgd"
WIDTHS = {1: 135, 2: 70, 4: 47, 8: 33}
"""Of perceptrons on digits with so many hidden layers and about ten thousand parameters."""


@dataclass(frozen=True)
class Form:
    """One form: draws of weights, layers and hidden layers, batches of the training part and its seeds."""

    draws: int
    layers: tuple[int, ...]
    hidden_layers: tuple[int, ...]
    batches: tuple[int, ...]
    seeds: tuple[int, ...]


FULL = Form(31, (2, 3, 4, 6, 8, 12, 16), (1, 2, 4, 8), (8, 32, 128, 512), (0, 1, 2, 3, 4))
QUICK = Form(3, (2, 4), (1, 2), (32, 128, 512), (0,))


def main(arguments: list[str] | None = None) -> None:
    """Measure, train, write tables and the figure."""
    torch.set_num_threads(1)
    with command("width", SUMMARY, "two depths, three draws, one seed", arguments, True) as study:
        form = QUICK if study.quick else FULL
        drawn = pl.DataFrame(study.rows([partial(draws, form.draws, *cell) for cell in at_start(form)]))
        cells = [partial(in_training, form, study.runs, depth) for depth in form.hidden_layers]
        trained = pl.DataFrame(study.rows(cells))
        study.save(drawn)
        study.save(trained, "_training")
        study.tell(markdown(drawn, trained))
        save_figure(drawn, trained, study.figure())


def at_start(form: Form) -> list[tuple[str, Family, float]]:
    """What is drawn: the closed forms, families of equal size, and what an initial offset does to ReLU."""
    cells: list[tuple[str, Family, float]] = [
        ("two layers", Family("linear", 50, k, 2, scaled=False, teacher=False), two_layer(k, 50))
        for k in (5, 10, 50, 100)
    ]
    for width, layers in ((64, 2), (128, 3), (128, 5)):
        for teacher in (False, True):
            cells.append(
                ("deep", Family("linear", width, width, layers, teacher=teacher), deep(width, layers, teacher))
            )
    for layers in form.layers:
        width = round(math.sqrt(PARAMETERS / layers))
        for kind in ("linear", "tanh", "relu", "residual"):
            family = Family(kind, width, width, layers, centred=kind == "relu")
            cells.append(("equal size", family, deep(width, layers, True) if kind == "linear" else math.nan))
    for width in (10, 50, 400):
        for centred in (False, True):
            cells.append(("offset", Family("relu", 50, width, 2, centred=centred), math.nan))
    return cells


def draws(count: int, part: str, family: Family, expected: float) -> list[dict[str, Any]]:
    """Diversity of so many draws of one cell."""
    name = "relu, centred" if family.centred else family.kind
    about = {"part": part, "family": name, "width": family.width, "layers": family.layers, "teacher": family.teacher}
    rows = [
        about | {"closed_form": expected, "seed": seed, "diversity": diversity(family, seed)} for seed in range(count)
    ]
    print(f"{part}: {name}, width {family.width}, {family.layers} layers", file=sys.stderr, flush=True)
    return rows


def in_training(form: Form, runs: Path, depth: int) -> list[dict[str, Any]]:
    """Steps to the goal at one depth for each batch and seed, with the critical batch that they fit."""
    options = (*DIGITS, "model=mlp", f"model.depth={depth}", f"model.width={WIDTHS[depth]}")
    task = Task(f"{depth} hidden", options, 1437, (GOAL,), form.batches, 0.2, (60, 40))
    points = of_task(task, runs, form.seeds)
    fitted = fit(points)[0] if fit(points) else {"b_crit": math.nan}  # too few batches arrive
    about = {"hidden_layers": depth, "width": WIDTHS[depth], "b_crit": fitted["b_crit"]}
    kept = ("batch", "rate", "seed", "steps", "b_noise")
    return [about | {name: point[name] for name in kept} for point in points if not point["tuning"]]


def largest_batch(batches: Sequence[int], examples: Sequence[float]) -> float:
    """Where the examples to the goal pass 1.2 times those of the smallest batch, between batches in the logarithm.

    NaN where a batch does not get there.

    >>> largest_batch([10, 100, 1000], [500.0, 550.0, 660.0])
    300.1
    """
    logs = np.log(np.asarray(examples) / (SLACK * examples[0]))
    if np.isnan(logs).any():
        return math.nan
    for i in range(1, len(logs)):
        if logs[i] > 0:
            share = -logs[i - 1] / (logs[i] - logs[i - 1])
            return round(float(batches[i - 1] * (batches[i] / batches[i - 1]) ** share), 1)
    return float(batches[-1])


def markdown(drawn: pl.DataFrame, trained: pl.DataFrame) -> str:
    """Medians over draws beside closed forms; batches and noise scales by depth."""
    lines = []
    columns = ("part", "family", "teacher", "width", "layers")
    for cell_key, cell in drawn.group_by(*columns, maintain_order=True):
        low, middle, high = np.nanquantile(cell["diversity"].to_numpy(), [0.25, 0.5, 0.75])
        expected = cell["closed_form"].to_numpy()[0]
        told = f"{expected:.1f}" if expected == expected else "-"
        lines.append([*(str(value) for value in cell_key), f"{middle:.1f}", f"{low:.1f} to {high:.1f}", told])
    start = table([*columns, "median B_S", "quartiles", "closed form"], lines)
    lines = []
    for (depth, width), cell in trained.group_by("hidden_layers", "width", maintain_order=True):
        sizes = pl.Series([largest(own) for _, own in cell.group_by("seed", maintain_order=True)])
        steps = [spread(own["steps"], ".0f") for _, own in cell.group_by("batch", maintain_order=True)]
        noise = cell["b_noise"].fill_nan(None).drop_nulls().to_numpy()
        ends = [cell["b_crit"].to_numpy()[0], float(np.exp(np.log(noise).mean())) if len(noise) else math.nan]
        shown = ["-" if math.isnan(end) else f"{end:.0f}" for end in ends]
        lines.append([str(depth), str(width), *steps, spread(sizes, ".0f"), *shown])
    batches = [f"steps at {batch}" for batch in trained["batch"].unique(maintain_order=True)]
    headings = ["largest batch within 1.2 x the epochs", "B_crit", "B_simple at the goal"]
    training = table(["hidden layers", "width", *batches, *headings], lines)
    return f"{start}\nDigits, loss {GOAL} on the training set:\n\n{training}"


def largest(own: pl.DataFrame) -> float:
    """`largest_batch` of one depth and seed."""
    own = own.sort("batch")
    return largest_batch(own["batch"].to_list(), (own["batch"] * own["steps"]).to_list())


def save_figure(drawn: pl.DataFrame, trained: pl.DataFrame, path: Path) -> None:
    """Diversity against depth at equal size, and examples to the goal against batch."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    equal = drawn.filter(pl.col("part") == "equal size")
    for name, color in COLORS.items():
        own = equal.filter(pl.col("family") == name)
        if own.height:
            points = own.group_by("layers").agg(pl.col("diversity").median()).sort("layers")
            left.plot(points["layers"], points["diversity"], "o-", color=color, label=name)
    form = (
        equal.filter(pl.col("family") == "linear").group_by("layers").agg(pl.col("closed_form").first()).sort("layers")
    )
    left.plot(form["layers"], form["closed_form"], ":", color="#444444", label="linear, closed form for wide layers")
    left.set(xscale="log", yscale="log", xlabel="layers", ylabel="gradient diversity B_S at the start")
    left.set_title(f"About {PARAMETERS:,} parameters each", fontsize=10)
    _examples(right, trained)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.25, which="both")
    figure.savefig(path, dpi=110)


def _examples(axes: Axes, trained: pl.DataFrame) -> None:
    colors = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00")
    for color, ((depth, width), cell) in zip(
        colors, trained.group_by("hidden_layers", "width", maintain_order=True), strict=False
    ):
        examples = (pl.col("steps") * pl.col("batch")).median().alias("examples")
        points = cell.group_by("batch").agg(examples).sort("batch")
        if not points["examples"].is_finite().any():
            continue
        axes.plot(
            points["batch"], points["examples"], "o-", color=color, label=f"hidden layers: {depth!s} of {width!s}"
        )
    axes.set(xscale="log", yscale="log", xlabel="global batch (examples)", ylabel=f"examples to loss {GOAL}")
    axes.set_title("Digits, about 10,000 parameters each, learning rate tuned", fontsize=10)


if __name__ == "__main__":
    main()
