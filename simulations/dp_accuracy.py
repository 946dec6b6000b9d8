"""Which batch, which epsilon, what accuracy: a perceptron on all of Fashion-MNIST under differential privacy.

    python -m simulations.dp_accuracy             after make data; about half an hour on one core
    python -m simulations.dp_accuracy --quick     digits, small grids, about a minute

A grid of global batches and epsilons with references (clipped without noise; not private, by SGD and by Adam);
numbers of rounds; a start from public data; mechanisms; cohorts and populations of clients. Every cell's learning rate
is tuned on a grid of factor two without edges, with a seed of its own; the table counts these trials and says what
epsilon they and the final run cost together. Writes docs/results/dp_accuracy.parquet and .md, and
docs/figures/dp_accuracy.png.
"""

import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from fedbatch.privacy import epsilon
from fedbatch.trained import export
from simulations.dp_accuracy_cells import CLIPPED, FULL, HERE, QUICK, UNPROTECTED, Cell, Line, Study, lines, population
from simulations.dp_accuracy_report import enough_clients, markdown, save_figure
from simulations.study import command
from simulations.study_runs import final, run_once, status
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, check the extrapolation, write the table and the figure."""
    with command("dp_accuracy", SUMMARY, "digits, small grids", arguments, side_by_side=True) as asked:
        study = QUICK if asked.quick else FULL
        rows = asked.rows([partial(measure, asked.runs, line) for line in lines(study)])
        rows += measure(asked.runs, [check(study, pl.DataFrame(rows, infer_schema_length=None))])
        found = pl.DataFrame(rows, infer_schema_length=None)
        asked.save(found)
        asked.tell(markdown(found))
        save_figure(found, asked.figure())


def check(study: Study, found: pl.DataFrame) -> Cell:
    """The population that should be enough, or all that the data make, whichever is less."""
    most = study.examples // study.each
    wanted = enough_clients(found)
    count = most if math.isinf(wanted) else min(most, math.ceil(wanted / 10) * 10)
    start = found.filter(pl.col("part") == "clients", ~pl.col("level").is_in(UNPROTECTED))["rate"][-1]
    return replace(population(study, count, study.ends[1]), part="clients, check", start=start)


def measure(runs: Path, line: Line) -> list[dict[str, Any]]:
    """Rows of all seeds of a line's cells, at the rates that were best with the tuning seed."""
    rows = []
    start = line[0].start
    for cell in line:
        start, trials = best_rate(runs, cell, start)
        for seed in cell.seeds:
            folder = run(runs, cell, start, seed)
            row = {"part": cell.part, "name": cell.name, "level": cell.level, "batch": cell.batch}
            row |= {"rounds": cell.rounds, "seed": seed, "rate": start, "trials": trials}
            row |= {"accuracy": final(folder, "test_accuracy"), "status": status(folder)}
            rows.append(row | spent(folder, cell, trials))
            print(f"{cell.part}: {cell.name}, {cell.level}, batch {cell.batch}, T {cell.rounds}, seed {seed}:", end=" ")
            print(f"{row['accuracy']:.4f} at rate {start:g}", flush=True)
    return rows


def best_rate(runs: Path, cell: Cell, start: float) -> tuple[float, int]:
    """The most accurate server learning rate with the tuning seed, and the number of rates that were tried."""
    tried = []

    def cost(rate: float) -> float:
        tried.append(rate)
        return -final(run(runs, cell, rate, TUNING_SEED), "test_accuracy")

    return tuned(cost, start, runs=15), len(tried)


def run(runs: Path, cell: Cell, rate: float, seed: int) -> Path:
    """Folder of one run, done unless it was."""
    numbers = (f"rounds={cell.rounds}", f"seed={seed}", f"server_optimizer.lr={rate:g}")
    return run_once(runs, [*cell.overrides, *public_model(runs, cell, seed), *numbers])


def public_model(runs: Path, cell: Cell, seed: int) -> tuple[str, ...]:
    """Overrides that start from the public model of this seed."""
    if cell.public is None:
        return ()
    folder = run(runs, cell.public, best_rate(runs, cell.public, cell.public.start)[0], seed)
    file = folder.resolve() / "model.pt"
    export(folder, file, trust=[HERE])
    return f"model._target_={HERE}.trained_mlp", f"+model.file='{file}'"


def spent(folder: Path, cell: Cell, trials: int) -> dict[str, Any]:
    """Noise of a private run, and the epsilon of it and its trials together."""
    if cell.level in (CLIPPED, *UNPROTECTED) or status(folder) != "finished":
        return {"noise_multiplier": None, "delta": None, "epsilon": None, "epsilon_with_trials": None}
    told = json.loads((folder / "summary.json").read_text())["privacy"]
    phases = [(p["sample_rate"], p["noise_multiplier"], p["steps"] * (trials + 1)) for p in told["schedule"]]
    return {
        "noise_multiplier": told["schedule"][0]["noise_multiplier"],
        "delta": told["delta"],
        "epsilon": told["epsilon"],
        "epsilon_with_trials": epsilon(phases, told["delta"]),
    }


if __name__ == "__main__":
    main()
