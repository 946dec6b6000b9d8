"""Benchmark client counts: what larger cohorts buy in rounds, and what they cost in examples.

    make data && python -m simulations.client_counts    the full grid, 25 minutes of a busy core
    python -m simulations.client_counts --quick         a small grid on digits, under a minute and a half

The server's learning rate of each method is tuned at one cohort size, by the training loss; other sizes reuse it (rule
constant) or scale it with the square root of the cohort (rule sqrt). Runs are fedbatch runs in folders named by a hash
of their overrides; finished ones are skipped. One run of a small cohort predicts what the others need. Writes
docs/results/client_counts.parquet, client_counts_predicted.parquet and .md, and figures client_counts.png and
client_counts_predicted.png.
"""

import math
import os
import sys
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl

from simulations.client_counts_predicted import predicted, predicted_markdown, save_predicted
from simulations.client_counts_report import fits_markdown, markdown, save_figure, trends_markdown
from simulations.study import command
from simulations.study_runs import run_once, status

SUMMARY = __doc__.splitlines()[0]
LOCAL = ("client_work=local_sgd", "client_work.lr=0.1", "client_batch_size=8", "executor=vmap")
METHODS = {
    "FedSGD": ("client_work=fedsgd", "client_batch_size=null", "executor=fused"),
    "FedAvg": LOCAL,
    "FedAvgM": (*LOCAL, "server_optimizer.momentum=0.9"),
    "FedAdam": (*LOCAL, "server_optimizer=adam"),
}
RULES = ("constant", "sqrt")
COSTS = ("rounds", "examples", "bytes", "simulated_seconds", "measured_seconds")
FAILED_BELOW_BEST = 0.1
"""A run failed if it diverged, or ended this far below its own best test accuracy."""


@dataclass(frozen=True)
class Study:
    """One form of the study.

    Attributes:
        common: overrides of all its runs.
        population: clients in all.
        sizes: of the cohorts.
        tuned_at: the cohort at which rates are tuned.
        predicted_from: the cohort whose run predicts what the others need.
        seeds: of the runs that are reported.
        learning_rates: a grid for each method.
        targets: test accuracies by name.
        goals: losses on examples of the training set, for the predictions.
    """

    common: tuple[str, ...]
    population: int
    sizes: tuple[int, ...]
    tuned_at: int
    predicted_from: int
    seeds: tuple[int, ...]
    learning_rates: dict[str, tuple[float, ...]]
    targets: dict[str, float]
    goals: tuple[float, ...]


SHARED = (
    *("partitioner=shard", "partitioner.num_shards_per_partition=4", "partitioner.seed=0", "controller=fixed"),
    *("model.width=32", "noise_scale.cosine=true", "checkpoint_every_rounds=0", "report=none"),
    *("training_set_examples=2000", "evaluate_every_rounds=4"),
)
TUNING_SEED = 100
FULL = Study(
    common=(*SHARED, "dataset=fashion_mnist", "client_holdout=0.867", "rounds=100"),  # 120 images each: train on 16
    population=500,
    sizes=(5, 10, 25, 50, 100, 200, 400),
    tuned_at=50,
    predicted_from=10,
    seeds=(0, 1, 2, 3, 4),
    learning_rates={
        "FedSGD": (0.05, 0.1, 0.2, 0.4, 0.8),
        "FedAvg": (0.5, 1, 2, 4, 8),
        "FedAvgM": (0.1, 0.2, 0.4, 0.8, 1.6),
        "FedAdam": (0.005, 0.01, 0.02, 0.04, 0.08),
    },
    targets={"low": 0.70, "high": 0.76},
    goals=(0.9, 0.7),
)
QUICK = Study(
    common=(*SHARED, "dataset=digits", "client_holdout=0.2", "rounds=40"),
    population=60,
    sizes=(5, 15, 45),
    tuned_at=15,
    predicted_from=5,
    seeds=(0,),
    learning_rates={"FedSGD": (0.2, 0.8), "FedAvg": (1, 2), "FedAvgM": (0.2, 0.4), "FedAdam": (0.02, 0.04)},
    targets={"low": 0.7, "high": 0.8},
    goals=(1.0,),
)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run the grid, predict, write the tables and the figures."""
    with command("client_counts", SUMMARY, "three sizes of cohort on digits, one seed", arguments, True) as asked:
        study = QUICK if asked.quick else FULL
        found = asked.rows([partial(tune, study, asked.runs, method) for method in METHODS])
        tuning = {str(row["method"]): dict(zip(row["rates"], row["losses"], strict=True)) for row in found}
        rates, cells = best_rates(tuning), list(product(study.seeds, METHODS))
        table = pl.DataFrame(
            asked.rows([partial(grid, study, asked.runs, seed, name, rates[name]) for seed, name in cells]),
            infer_schema_length=None,
        )
        asked.save(table)
        guesses = pl.DataFrame(predicted(table, asked.runs, study.predicted_from, study.goals))
        asked.save(guesses, "_predicted")
        parts = [
            markdown(table, study.targets),
            fits_markdown(table, study.targets, study.tuned_at),
            predicted_markdown(guesses),
            trends_markdown(table, study.tuned_at),
            tuning_markdown(tuning),
        ]
        asked.tell("\n".join(parts))
        save_figure(table, study.targets, study.tuned_at, asked.figure())
        save_predicted(guesses, asked.figure("_predicted"))


def tune(study: Study, runs: Path, method: str) -> list[dict[str, Any]]:
    """One row: learning rates and their training losses at ``tuned_at`` clients, over the last fifth of the rounds."""
    losses = []
    for rate in study.learning_rates[method]:
        folder = run_once(runs, overrides(study, method, study.tuned_at, rate, TUNING_SEED))
        loss = tail_mean(record(folder), "train_loss") if status(folder) == "finished" else math.inf
        losses.append(loss if math.isfinite(loss) else math.inf)
    return [{"method": method, "rates": study.learning_rates[method], "losses": losses}]


def best_rates(tuning: dict[str, dict[float, float]]) -> dict[str, float]:
    """The learning rate of least loss for each method."""
    return {method: min(losses, key=losses.__getitem__) for method, losses in tuning.items()}


def grid(study: Study, runs: Path, seed: int, method: str, tuned: float) -> list[dict[str, Any]]:
    """A row for each rule and cohort size."""
    rows = []
    for rule, size in product(RULES, study.sizes):
        rate = tuned * (math.sqrt(size / study.tuned_at) if rule == "sqrt" else 1)
        folder = run_once(runs, overrides(study, method, size, rate, seed))
        outcome = status(folder)
        row = {"method": method, "rule": rule, "cohort_size": size, "seed": seed, "lr": rate, "status": outcome}
        row |= {"population": study.population, "run": folder.name}
        rows.append(row | summarize(record(folder), study.targets, outcome))
        print(f"{method} {rule} M={size} seed={seed}: {outcome}", file=sys.stderr)
    return rows


def overrides(study: Study, method: str, size: int, rate: float, seed: int) -> list[str]:
    """The command line of a run."""
    numbers = {"population": study.population, "cohort_size": size, "server_optimizer.lr": f"{rate:.6g}", "seed": seed}
    return [*study.common, *METHODS[method], *(f"{name}={value}" for name, value in numbers.items())]


def record(folder: Path) -> pl.DataFrame:
    """The run's rounds, with costs as running totals; empty if it failed before the first."""
    path = folder / "rounds.parquet"
    rounds = pl.read_parquet(path) if path.is_file() else pl.DataFrame()
    if rounds.is_empty():
        return rounds
    # The record's own measured_seconds includes evaluation, which is much of a small cohort's round.
    stages = pl.sum_horizontal(f"{stage}_seconds" for stage in ("plan", "client", "aggregate", "step"))
    bytes_ = pl.col("bytes_up") + pl.col("bytes_down")
    return rounds.with_columns(measured_seconds=stages.cum_sum(), bytes=bytes_)


def summarize(rounds: pl.DataFrame, targets: dict[str, float], outcome: str) -> dict[str, Any]:
    """What a run's row says: costs to each target, the end, and update norms. Spans are fifths of the rounds."""
    tested = rounds if rounds.is_empty() else rounds.filter(pl.col("test_accuracy").is_not_nan())
    if tested.is_empty():
        return {"failed": True}
    accuracy = tested["test_accuracy"]
    below = accuracy.to_numpy().max() - accuracy[-1]
    row: dict[str, Any] = {"failed": bool(outcome != "finished" or below > FAILED_BELOW_BEST)}
    for name, target in targets.items():
        row |= {f"{name}_{key}": value for key, value in costs_to(tested, rounds, target).items()}
    row |= {"test_accuracy": accuracy[-1], "train_loss": tail_mean(rounds, "train_loss")}
    row |= {f"client_accuracy_p{q}": tail_mean(tested, f"client_accuracy_p{q}") for q in (5, 25, 50, 75, 95)}
    row |= {"update_norm": tail_mean(rounds, "mean_update_norm")}
    row |= {"update_norm_start": rounds["mean_update_norm"][0], "mean_cosine": tail_mean(rounds, "mean_cosine")}
    return row | {"curve_examples": tested["examples"].to_list(), "curve_accuracy": accuracy.to_list()}


def costs_to(tested: pl.DataFrame, rounds: pl.DataFrame, target: float) -> dict[str, float | None]:
    """Costs at the first evaluation that reaches ``target``, interpolated from the one before, and the client-level
    noise scale: the median over the rounds up to there, None if it was not reached.
    """
    accuracy = tested["test_accuracy"].to_numpy()
    hits = np.flatnonzero(accuracy >= target)
    if not len(hits):
        return dict.fromkeys((*COSTS, "noise"))
    here = int(hits[0])
    share = (accuracy[here] - target) / (accuracy[here] - accuracy[here - 1]) if here else 0.0
    places = np.arange(len(accuracy))
    costs: dict[str, float | None] = {c: float(np.interp(here - share, places, tested[c].to_numpy())) for c in COSTS}
    way = rounds.filter(pl.col("rounds") <= tested["rounds"][here])
    in_clients = way["noise_scale_unit"][0] == "clients"
    per_client = (
        1.0 if in_clients else float(way["global_batch"].to_numpy().sum() / way["cohort_size"].to_numpy().sum())
    )
    return costs | {"noise": float(np.nanmedian(way["noise_scale"].to_numpy())) / per_client}


def tail_mean(rounds: pl.DataFrame, column: str) -> float:
    """Mean over the last fifth of the rows."""
    return float(rounds[column].to_numpy()[-max(1, rounds.height // 5) :].mean())


def tuning_markdown(tuning: dict[str, dict[float, float]]) -> str:
    """Training loss by learning rate, the chosen one in bold."""
    best, lines = best_rates(tuning), ["Training loss when tuned, by server learning rate:", ""]
    for method, losses in tuning.items():
        cells = [
            f"**{rate:g}: {loss:.3f}**" if rate == best[method] else f"{rate:g}: {loss:.3f}"
            for rate, loss in losses.items()
        ]
        lines.append(f"- {method}: {', '.join(cells)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
