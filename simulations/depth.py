"""Do wide networks train with larger batches than deep ones of equal size, once all of them train?

    python -m simulations.depth             ten minutes of CPU time; resumable
    python -m simulations.depth --quick     three networks, one seed, under a minute

After Chen et al. 2018. Plain and residual ReLU networks with layer norm, of about ten thousand parameters and 1 to 16
hidden layers, on digits. For each batch the rate is walked with a seed of its own. Compared are the largest batch
within 1.2 times the examples of the smallest, B_crit fitted to the steps, B_crit that `fedbatch critical` tells from
the smallest batch alone, and the noise scale (gradient diversity less one) at the same loss. Writes
docs/results/depth.parquet and .md, and docs/figures/depth.png.
"""

import math
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from fedbatch.core.errors import ConfigError
from fedbatch.results.critical import critical
from simulations.depth_models import width_of
from simulations.depth_report import markdown, save_figure
from simulations.goals import curve
from simulations.steps_to_goal import Task, measure
from simulations.study import Study, command
from simulations.study_runs import run_once

SUMMARY = __doc__.splitlines()[0]
INPUTS, CLASSES, EXAMPLES, PARAMETERS = 64, 10, 1437, 10_000
GOAL = 0.2


@dataclass(frozen=True)
class Form:
    """One form of the study: families with their hidden layers, batches and seeds.

    With one hidden layer both families are the same. Plain networks of sixteen hardly train.
    """

    networks: dict[str, tuple[int, ...]]
    batches: tuple[int, ...]
    seeds: tuple[int, ...]


FULL = Form({"plain": (1, 2, 4, 8), "residual": (2, 4, 8, 16)}, (8, 32, 128, 512), (0, 1, 2))
QUICK = Form({"plain": (1, 4), "residual": (4,)}, (8, 64, 512), (0,))


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("depth", SUMMARY, "three networks, one seed", arguments, True, True) as study:
        form = QUICK if study.quick else FULL
        networks = [(family, depth) for family, depths in form.networks.items() for depth in depths]
        cells = [partial(of_network, study, form, *network) for network in networks]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def of_network(study: Study, form: Form, family: str, depth: int) -> list[dict[str, Any]]:
    """Steps to the goal by batch and seed, with the noise scale there, and B_crit as the smallest batch tells it."""
    task = task_of(form, family, depth, study.device)
    points = measure(
        lambda batch, rate, seed: curve(run_once(study.runs, task.run_overrides(batch, rate, seed))),
        task.batches,
        task.goals,
        task.rate,
        task.examples,
        form.seeds,
    )
    about = {"family": family, "depth": depth, "width": width_of(INPUTS, CLASSES, depth, PARAMETERS)}
    rows: list[dict[str, Any]] = [about | {"examples": EXAMPLES, "told": math.nan} | point for point in points]
    for row in rows:
        if row["batch"] == form.batches[0] and not row["tuning"]:
            row["told"] = told(study, task.run_overrides(row["batch"], row["rate"], row["seed"]))
    return rows


def task_of(form: Form, family: str, depth: int, device: str) -> Task:
    """The grid of one network."""
    width = width_of(INPUTS, CLASSES, depth, PARAMETERS)
    options = (
        *("dataset=digits", "model=mlp", "model._target_=simulations.depth_models.network"),
        *(f"+model.family={family}", f"model.depth={depth}", f"model.width={width}", "server_optimizer=sgd"),
        *("report=none", "partitioner.seed=0", f"device={device}"),
        f"target_value={0.8 * GOAL:g}",
    )
    return Task(f"{family} {depth}", options, EXAMPLES, (GOAL,), form.batches, 0.1, (30, 60))


def told(study: Study, options: list[str]) -> float:
    """B_crit as `fedbatch critical` tells it of one run, in examples; NaN where it cannot.

    Up to the run's end, which comes with a first loss of 0.8 of the goal: at small batches the loss jumps so much that
    its smoothed curve seldom gets there.
    """
    try:
        said = critical(run_once(study.runs, options))
    except ConfigError:
        return math.nan
    return said.goals[-1].b_crit * (said.client_batch if said.unit == "clients" else 1)


if __name__ == "__main__":
    main()
