"""What a batch costs: the README's first picture and table.

    python -m simulations.first_run                 five seeds; five minutes of a core
    python -m simulations.first_run --quick         one seed, short runs

The default controller, which is told nothing, beside three fixed batches, all with averaged parameters and each at its
own learning rate (walked by factors of 2 on a seed of its own). Costs are rounds and examples to a test accuracy. A
second picture has what one run at the small batch says of the other batches (`fedbatch.critical`), beside them. Writes
docs/results/first_run.parquet and .md, and figures first_run.png and first_run_front.png.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simulations.first_run_figure import save_curves, save_front
from simulations.study import Study, command
from simulations.study_runs import run_once, status
from simulations.tables import spread, table
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
SEEDS, TUNING_SEED, START = (0, 1, 2, 3, 4), 100, 0.2
CONTENDERS = {
    "batch 64": ("controller=fixed",),
    "batch 256": ("controller=fixed", "cohort_size=64"),
    "batch 1,024": ("controller=fixed", "cohort_size=64", "client_batch_size=16"),
    "fedbatch, told nothing": (),
}
COMMON = ("averaging=polynomial", "report=none", "checkpoint_every_rounds=0", "evaluate_every_rounds=5")
SCORE, ROUNDS = "average_test_accuracy", 1000
TUNED_TO, TARGETS = 0.84, (0.82, 0.85)
LOSSES = (0.6, 0.5, 0.45, 0.4)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and both pictures."""
    with command("first_run", SUMMARY, "one seed, short runs", arguments, True) as study:
        seeds, tuned_to, rounds = (SEEDS, TUNED_TO, ROUNDS) if not study.quick else (SEEDS[:1], 0.5, 40)
        targets = TARGETS if not study.quick else (0.5, 0.7)
        rates = {name: rate_of(study, name, tuned_to, rounds) for name in CONTENDERS}
        cells = [partial(curve, study, name, rates[name], seed, rounds) for seed in seeds for name in CONTENDERS]
        curves = pl.DataFrame(study.rows(cells))
        study.save(curves)
        save_curves(curves, targets, study.figure())
        fixed = [folder_of(study, name, rates[name], seeds[0], rounds) for name in list(CONTENDERS)[:-1]]
        said = save_front(fixed, LOSSES if not study.quick else (2.0, 1.5), study.figure("_front"))
        study.tell(markdown(curves, rates, targets) + f"\n{said}\n")


def folder_of(study: Study, name: str, rate: float, seed: int, rounds: int) -> Path:
    """The finished run of a contender."""
    options = [*COMMON, *CONTENDERS[name], f"server_optimizer.lr={rate:g}", f"seed={seed}", f"rounds={rounds}"]
    return run_once(study.runs, [*options, "training_set_examples=2000", "partitioner.seed=0"])


def curve(study: Study, name: str, rate: float, seed: int, rounds: int) -> list[dict[str, Any]]:
    """Rounds, examples and score at every evaluation; none of a run that failed."""
    folder = folder_of(study, name, rate, seed, rounds)
    if status(folder) != "finished":
        return []
    rows = pl.read_parquet(folder / "rounds.parquet", columns=["rounds", "examples", SCORE]).drop_nulls()
    return [{"contender": name, "seed": seed, **row} for row in rows.filter(pl.col(SCORE).is_not_nan()).to_dicts()]


def rate_of(study: Study, name: str, target: float, rounds: int) -> float:
    """The rate with the least product of rounds and examples to the target."""

    def cost(rate: float) -> float:
        reached = [row for row in curve(study, name, rate, TUNING_SEED, rounds) if row[SCORE] >= target]
        return float(reached[0]["rounds"] * reached[0]["examples"]) if reached else float("nan")

    return tuned(cost, START, runs=1 if study.quick else 5)


def costs_of(curves: pl.DataFrame, target: float) -> pl.DataFrame:
    """Rounds and examples to the target by contender and seed; null where it was not reached."""
    hit = pl.col(SCORE) >= target
    first = (pl.col(name).filter(hit).first().cast(pl.Float64) for name in ("rounds", "examples"))
    return curves.group_by("contender", "seed", maintain_order=True).agg(*first)


def markdown(curves: pl.DataFrame, rates: dict[str, float], targets: Sequence[float]) -> str:
    """Means and spreads over seeds of what each contender needs to each target, and of its last score."""
    last = curves.group_by("contender", "seed", maintain_order=True).agg(pl.col(SCORE).last() * 100)
    costs = [costs_of(curves, target) for target in targets]
    lines = []
    for name, rate in rates.items():
        own = pl.col("contender") == name
        each = [cost.filter(own)[column].fill_null(np.nan) for cost in costs for column in ("rounds", "examples")]
        lines.append([name, f"{rate:g}", *(spread(c, ",.0f") for c in each), spread(last.filter(own)[SCORE], ".1f")])
    to = [f"{column} to {target:.0%}" for target in targets for column in ("rounds", "examples")]
    return table(["", "rate", *to, "accuracy at the end, %"], lines)


if __name__ == "__main__":
    main()
