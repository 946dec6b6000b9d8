"""Differential privacy against accuracy: what large global batches, schedules and mechanisms buy at one epsilon.

    python simulations/dp_tradeoff.py             the full grid, about half an hour on one core
    python simulations/dp_tradeoff.py --quick     a small grid on digits, under two minutes

Example-level runs have 100 clients, all of which take part in every round, so that the global batch is set by the
client batch alone and the noise is that of one central mechanism (privacy=example_distributed). The server's learning
rate is tuned for every cell with a seed of its own; that tuning is not paid for in epsilon, as every run's statement
says. Writes docs/results/dp_tradeoff.parquet and .md, and docs/figures/dp_tradeoff.png.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl
from dp_tradeoff_report import markdown, save_figure
from study import command
from study_runs import final, run_once, status

from fedbatch.privacy import noise_multiplier
from fedbatch.server.checkpoint import load_latest

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100
CLIENTS = 100


@dataclass(frozen=True)
class Study:
    """One form of the study.

    Attributes:
        common: overrides of all runs.
        examples: N, training examples; the data set's own number.
        rounds: T.
        client_batches: global batches over 100 clients.
        epsilons: targets; infinity is the run without privacy.
        clip_norms: tried at the middle batch.
        rates: grid of server learning rates.
        seeds: of the reported runs.
        width: override of the perceptron's width.
        cnn: overrides of the runs with a normalised CNN.
    """

    common: tuple[str, ...]
    examples: int
    rounds: int
    client_batches: tuple[int, ...]
    epsilons: tuple[float, ...]
    clip_norms: tuple[float, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    width: str
    cnn: tuple[str, ...]

    @property
    def middle(self) -> int:
        """The client batch at which everything else is varied."""
        return self.client_batches[len(self.client_batches) // 2]


QUIET = ("evaluate_every_rounds=20", "checkpoint_every_rounds=0", "executor=fused", f"population={CLIENTS}")
FULL = Study(
    common=(*QUIET, "dataset=fashion_mini"),
    examples=10_000,
    rounds=80,
    client_batches=(1, 4, 16, 50),
    epsilons=(0.5, 2.0, 8.0, math.inf),
    clip_norms=(0.1, 1.0, 10.0),
    rates=(0.1, 0.3, 1.0, 3.0),
    seeds=(0, 1, 2),
    width="model.width=32",
    cnn=("model=cnn", "model.channels=8", "model.hidden=32", "model.norm=group", "model.groups=4"),
)
QUICK = Study(
    common=(*QUIET, "dataset=digits"),
    examples=1_437,
    rounds=20,
    client_batches=(1, 4),
    epsilons=(2.0, math.inf),
    clip_norms=(1.0,),
    rates=(0.3, 1.0),
    seeds=(0,),
    width="model.width=16",
    cnn=("model=cnn", "model.channels=4", "model.hidden=8", "model.norm=group", "model.groups=2"),
)


@dataclass(frozen=True)
class Cell:
    """One point of the study: what is compared (``part``), under which name, with which overrides."""

    part: str
    name: str
    epsilon: float
    batch: float
    overrides: tuple[str, ...]


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("dp_tradeoff", SUMMARY, "digits, two batches, one seed", arguments) as asked:
        study = QUICK if asked.quick else FULL
        rows = [row for cell in cells(study) for row in measure(study, cell, asked.runs)]
        table, noise = pl.DataFrame(rows, infer_schema_length=None), noise_table(study)
        asked.save(table)
        asked.tell(markdown(table, noise, study.examples, study.rounds))
        save_figure(table, noise, study.examples, study.rounds, asked.figure())


def cells(study: Study) -> list[Cell]:
    """All points: batch and epsilon, clip norm, schedule, mechanism, weight decay."""
    fixed = ("controller=fixed", "sampling=all", f"cohort_size={CLIENTS}")
    found = []
    for epsilon in study.epsilons:
        for b in study.client_batches:
            overrides = (*fixed, f"client_batch_size={b}", *central(epsilon))
            found.append(Cell("batch", f"B={CLIENTS * b}", epsilon, CLIENTS * b, overrides))
    middle, epsilon = study.middle, study.epsilons[len(study.epsilons) // 2 - 1]
    batch = CLIENTS * middle
    at_middle = (*fixed, f"client_batch_size={middle}")
    for norm in study.clip_norms:
        overrides = (*at_middle, *central(epsilon), f"privacy.clip_norm={norm:g}", f"server_optimizer.lr={1 / norm:g}")
        found.append(Cell("clip norm", f"C={norm:g}", epsilon, batch, overrides))
    for name, options in schedules(study, middle).items():
        found.append(Cell("schedule", name, epsilon, batch, (*options, *central(epsilon))))
    # One round's sum of all clients carries a hundred noises where each adds its own: local pays that for its trust.
    local = ("privacy=example_local", f"privacy.target_epsilon={epsilon:g}")
    found.append(Cell("mechanism", "example_local", epsilon, batch, (*at_middle, *local)))
    found.append(Cell("mechanism", "example_distributed", epsilon, batch, (*at_middle, *central(epsilon))))
    clients = ("controller=fixed", "population=500", "cohort_size=250", "client_batch_size=null")
    client_level = ("privacy=client_central", f"privacy.target_epsilon={epsilon:g}")
    found.append(Cell("mechanism", "client_central", epsilon, 250, (*clients, *client_level)))
    for decay in (0.0, 0.01, 0.1):
        small = (*fixed, "client_batch_size=4")  # a CNN costs more an example
        overrides = (*study.cnn, *small, *central(epsilon), f"server_optimizer.weight_decay={decay:g}")
        found.append(Cell("weight decay", f"CNN, group norm, decay {decay:g}", epsilon, 4 * CLIENTS, overrides))
    return found


def central(epsilon: float) -> tuple[str, ...]:
    """Overrides of one central example-level mechanism, or of a run without."""
    if math.isinf(epsilon):
        return ()
    return ("privacy=example_distributed", f"privacy.target_epsilon={epsilon:g}", f"privacy.min_clients={CLIENTS}")


def schedules(study: Study, middle: int) -> dict[str, tuple[str, ...]]:
    """The same number of examples in a fixed batch, and in two batches of which the second is three times the first."""
    large = f"controller.phases.large.client_batch_size={middle * 3 // 2}"
    rising = (
        *("controller=schedule", "sampling=all", f"cohort_size={CLIENTS}", f"client_batch_size={middle // 2}"),
        *(f"controller.phases.large.cohort_size={CLIENTS}", large, f"controller.starts.large={study.rounds // 2}"),
    )
    return {
        "fixed": ("controller=fixed", "sampling=all", f"cohort_size={CLIENTS}", f"client_batch_size={middle}"),
        "increasing, constant noise multiplier": (*rising, "learning_rate.rule=constant"),
        "increasing, constant noise of the mean": (
            *(*rising, "learning_rate.rule=constant", "privacy.noise_schedule=proportional"),
        ),
    }


def measure(study: Study, cell: Cell, runs: Path) -> list[dict[str, Any]]:
    """Rows of a cell's seeds, at the learning rate that was best with the tuning seed."""

    def run(rate: float, seed: int) -> Path:
        given = [o for o in cell.overrides if not o.startswith("server_optimizer.lr=")]
        base = next((float(o.split("=")[1]) for o in cell.overrides if o.startswith("server_optimizer.lr=")), 1.0)
        numbers = [f"rounds={study.rounds}", f"seed={seed}", f"server_optimizer.lr={rate * base:g}"]
        width = () if any(o.startswith("model=") for o in given) else (study.width,)
        return run_once(runs, [*study.common, *width, *given, *numbers])

    # By accuracy, which is what is reported: a loss is lowest at rates too small to get far in so few rounds.
    accuracies = {rate: final(run(rate, TUNING_SEED), "test_accuracy") for rate in study.rates}
    best = max(accuracies, key=lambda rate: accuracies[rate] if math.isfinite(accuracies[rate]) else -math.inf)
    rows = []
    for seed in study.seeds:
        folder = run(best, seed)
        row = {"part": cell.part, "name": cell.name, "epsilon": cell.epsilon, "batch": cell.batch, "seed": seed}
        row |= {"rate": best, "status": status(folder), "accuracy": final(folder, "test_accuracy")}
        rows.append(row | details(folder))
        name = f"{cell.part}: {cell.name}, epsilon {cell.epsilon:g}, seed {seed}"
        print(f"{name}: {row['accuracy']:.3f}", file=sys.stderr)
    return rows


def details(folder: Path) -> dict[str, Any]:
    """Signal to noise over the rounds, noise, and the length of the weights at the end."""
    if status(folder) != "finished":
        return {}
    rounds = pl.read_parquet(folder / "rounds.parquet")
    norm = float(load_latest(folder / "checkpoints").params.double().norm())
    row: dict[str, Any] = {"weight_norm": norm, "examples": int(rounds["examples"][-1])}
    if "gradient_snr" in rounds.columns:
        row |= {"snr": rounds["gradient_snr"].to_list(), "noise_multiplier": float(rounds["noise_multiplier"][-1])}
    return row


def noise_table(study: Study) -> list[dict[str, float]]:
    """Noise of the mean, sigma / B, that each epsilon needs at each batch; accounting only, no training."""
    rows = []
    for epsilon in (e for e in study.epsilons if math.isfinite(e)):
        for batch in np.geomspace(0.005, 1.0, 8) * study.examples:
            sigma = noise_multiplier(epsilon, 0.1 / study.examples, [(batch / study.examples, 1.0, study.rounds)])
            rows.append({"epsilon": epsilon, "batch": float(batch), "sigma": sigma, "ratio": sigma / batch})
    return rows


if __name__ == "__main__":
    main()
