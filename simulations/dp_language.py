"""Mega-batches for a private masked language model: what a larger global batch buys at one epsilon (after DP-BERT).

    python simulations/dp_language.py             about twenty minutes on one core
    python simulations/dp_language.py --quick     tiny, under a minute

A small BERT on the plays in sequences of eight characters; the protected unit is a sequence, the mechanism one
distributed noise over 64 clients. AdamW; its learning rate is tuned twice, at the largest batch with the larger epsilon
and without privacy, by the accuracy of a seed that is not reported. Finished runs are
skipped. Writes docs/results/dp_language.parquet and .md, and docs/figures/dp_language.png.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl
from matplotlib.figure import Figure
from study import command
from study_runs import final, run_once, status
from tables import spread, table
from tuning import tuned

from fedbatch.server.checkpoint import load_latest

SUMMARY = __doc__.splitlines()[0]
CLIENTS = 64
TUNING_SEED = 100
START_RATE = 0.008
COLORS = ("#0072B2", "#D55E00", "#009E73")


@dataclass(frozen=True)
class Form:
    """One form of the study.

    Attributes:
        common: overrides of all runs.
        rounds: T.
        client_batches: expected batches of a client; the middle one is where all but the batch is varied.
        epsilons: rising; infinity is the run without privacy.
        decays: weight decay of AdamW.
        seeds: of the reported runs.
        walk: most runs of the search for a learning rate.
    """

    common: tuple[str, ...]
    rounds: int
    client_batches: tuple[int, int, int]
    epsilons: tuple[float, ...]
    decays: tuple[float, ...]
    seeds: tuple[int, ...]
    walk: int


PLAYS = (
    *("dataset=shakespeare_roles", "dataset.task=masked", "dataset.min_sequences=64", "dataset.test_fraction=0.02"),
    *("dataset.context=8", "partitioner=iid", f"population={CLIENTS}", f"cohort_size={CLIENTS}", "sampling=all"),
    *("model=bert", "model.heads=2", "executor=fused", "checkpoint_every_rounds=0", "evaluate_every_rounds=0"),
    *("server_optimizer=adamw", "server_optimizer.betas=[0.9,0.99]", "learning_rate.rule=constant"),
)
FULL = Form(
    common=(*PLAYS, "model.layers=2", "model.width=48"),
    rounds=200,
    client_batches=(2, 8, 32),
    epsilons=(1.0, 8.0, math.inf),
    decays=(0.0, 0.1, 1.0),
    seeds=(0, 1),
    walk=9,
)
QUICK = Form(
    common=(*PLAYS, "model.layers=1", "model.width=8"),
    rounds=4,
    client_batches=(2, 4, 8),
    epsilons=(8.0, math.inf),
    decays=(0.0,),
    seeds=(0,),
    walk=1,
)


@dataclass(frozen=True)
class Cell:
    """One point: what is compared (``part``), under which name, with which overrides."""

    part: str
    name: str
    epsilon: float
    overrides: tuple[str, ...]


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("dp_language", SUMMARY, "a tiny model, four rounds, one seed", arguments) as study:
        rows = pl.DataFrame(measure(QUICK if study.quick else FULL, study.runs))
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def cells(form: Form) -> list[Cell]:
    """Batch and epsilon, a schedule of equal examples, weight decay."""
    _, middle, _ = form.client_batches
    epsilon = form.epsilons[-2]
    found = [
        Cell("batch", f"{CLIENTS * b:,}", e, (fixed(b), *private(e)))
        for e in form.epsilons
        for b in form.client_batches
    ]
    rising = (
        *("controller=schedule", f"client_batch_size={middle // 2}", f"controller.starts.large={form.rounds // 2}"),
        *(
            f"controller.phases.large.{size}"
            for size in (f"cohort_size={CLIENTS}", f"client_batch_size={middle * 3 // 2}")
        ),
        "privacy.noise_schedule=proportional",
    )
    found.append(
        Cell("schedule", f"{CLIENTS * middle // 2:,}, then three times", epsilon, (*private(epsilon), *rising))
    )
    for decay in form.decays:
        name = f"weight decay {decay:g}"
        found.append(
            Cell("decay", name, epsilon, (fixed(middle), *private(epsilon), f"server_optimizer.weight_decay={decay:g}"))
        )
    return found


def fixed(client_batch: int) -> str:
    """Override of a batch that stays."""
    return f"client_batch_size={client_batch}"


def private(epsilon: float) -> tuple[str, ...]:
    """Overrides of the mechanism, or of a run without."""
    if math.isinf(epsilon):
        return ("privacy=none",)
    return ("privacy=example_distributed", f"privacy.target_epsilon={epsilon:g}", f"privacy.min_clients={CLIENTS}")


def measure(form: Form, runs: Path) -> list[dict[str, Any]]:
    """Rows of all cells and seeds, at two learning rates."""

    def run(options: tuple[str, ...], rate: float, seed: int) -> Path:
        controller = () if any(o.startswith("controller=") for o in options) else ("controller=fixed",)
        numbers = (f"rounds={form.rounds}", f"seed={seed}", f"server_optimizer.lr={rate:g}")
        return run_once(runs, [*form.common, *controller, *options, *numbers])

    def best(epsilon: float) -> float:
        largest = (fixed(form.client_batches[-1]), *private(epsilon))
        return tuned(lambda r: -final(run(largest, r, TUNING_SEED), "test_accuracy"), START_RATE, runs=form.walk)

    rates = {True: best(form.epsilons[-2]), False: best(math.inf)}  # with and without privacy
    rows = []
    for cell in cells(form):
        rate = rates[math.isfinite(cell.epsilon)]
        for seed in form.seeds:
            folder = run(cell.overrides, rate, seed)
            row = {"part": cell.part, "name": cell.name, "epsilon": cell.epsilon, "seed": seed, "rate": rate}
            row |= {"accuracy": final(folder, "test_accuracy"), "loss": final(folder, "test_loss")}
            row |= {"examples": final(folder, "examples"), "weight_norm": weight_norm(folder)}
            rows.append(row)
            print(
                f"{cell.part} {cell.name}, epsilon {cell.epsilon:g}: {row['accuracy']:.3f}", file=sys.stderr, flush=True
            )
    return rows


def weight_norm(folder: Path) -> float:
    """Length of all parameters at the end, NaN for a run that failed."""
    return (
        float(load_latest(folder / "checkpoints").params.double().norm()) if status(folder) == "finished" else math.nan
    )


def markdown(rows: pl.DataFrame) -> str:
    """Mean and standard deviation over seeds of every cell."""
    lines = []
    for (part, name, epsilon), cell in rows.group_by("part", "name", "epsilon", maintain_order=True):
        means = [spread(cell[c], form) for c, form in (("loss", ".3f"), ("examples", ",.0f"), ("weight_norm", ".1f"))]
        limit = str(epsilon) if epsilon != math.inf else "none"
        start = [str(part), str(name), limit, spread(100 * cell["accuracy"], ".1f")]
        lines.append([*start, *means, f"{cell['rate'][0]:g}", str(cell.height)])
    columns = ("masked accuracy %", "loss", "examples", "weight norm", "lr", "seeds")
    return table(["part", "", "epsilon", *columns], lines)


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Accuracy against batch, a line for each epsilon."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    rows = rows.filter(pl.col("part") == "batch").with_columns(batch=pl.col("name").str.replace(",", "").cast(int))
    for color, (epsilon,) in zip(COLORS, rows.select("epsilon").unique(maintain_order=True).iter_rows(), strict=False):
        accuracy = 100 * pl.col("accuracy")
        mean, spread = accuracy.mean().alias("mean"), accuracy.std().fill_null(0).alias("std")
        points = rows.filter(pl.col("epsilon") == epsilon).group_by("batch").agg(mean, spread).sort("batch")
        label = "no privacy" if math.isinf(epsilon) else f"epsilon {epsilon:g}"
        axes.errorbar(points["batch"], points["mean"], points["std"], color=color, label=label, marker="o", capsize=3)
    axes.set(xscale="log", xlabel="global batch (sequences)", ylabel="masked characters right %")
    batches = sorted(rows["batch"].unique())
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
