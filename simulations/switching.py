"""Small, large, or a switch between them: who wins at equal rounds, examples, bytes and simulated seconds?

    python simulations/switching.py             all settings; hours, not yet run whole
    python simulations/switching.py --quick     digits, tiny, one seed, about a minute

Every contender gets its own learning rate, tuned on one grid by the mean accuracy over all cost axes with a seed that
is not reported. The controllers are our own design; see docs/noise_scale.md. Finished runs are skipped. Writes
docs/results/switching.parquet and .md, and docs/figures/switching.png.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl
from runs import run_once
from study import command
from switching_costs import accuracy_at, budgets, cost_to, costs
from switching_report import markdown, save_figure
from tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100
SMALL, LARGE, MIDDLE = (16, 4), (64, 16), (64, 4)  # clients, examples of each
SHARES = (0.5, 1.0)  # of the budgets


@dataclass(frozen=True)
class Setting:
    """A data set, model, partition and optimizer by name, and how they are run.

    Attributes:
        overrides: of all its runs.
        rate: learning rate from which the searches start.
        rounds: R, of the large batch.
        target: accuracy whose cost is reported.
    """

    task: str
    model: str
    partition: str
    optimizer: str
    overrides: tuple[str, ...]
    rate: float
    rounds: int
    target: float = 0.8


@dataclass(frozen=True)
class Form:
    """One form of the study."""

    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    walk: int


MOMENTUM, ADAM = ("server_optimizer=sgd", "server_optimizer.momentum=0.9"), ("server_optimizer=adam",)
IID, SKEWED = (
    ("partitioner=iid",),
    ("partitioner=dirichlet", "partitioner.alpha=0.3", "partitioner.min_partition_size=16"),
)
CNN = ("model=cnn", "model.channels=8", "model.hidden=32")
FULL = Form(
    (
        Setting("Fashion", "MLP", "IID", "momentum", (*IID, *MOMENTUM), 0.02, 200),
        Setting("Fashion", "MLP", "Dirichlet 0.3", "momentum", (*SKEWED, *MOMENTUM), 0.02, 200),
        Setting("Fashion", "MLP", "IID", "Adam", (*IID, *ADAM), 0.002, 200),
        Setting("Fashion", "MLP", "Dirichlet 0.3", "Adam", (*SKEWED, *ADAM), 0.002, 200),
        Setting("Fashion", "CNN", "IID", "momentum", (*IID, *MOMENTUM, *CNN), 0.02, 100),
        Setting("Fashion", "CNN", "Dirichlet 0.3", "momentum", (*SKEWED, *MOMENTUM, *CNN), 0.02, 100),
    ),
    seeds=(0, 1, 2),
    walk=9,
)
TINY = ("dataset=digits", "population=64", "model.width=16", "partitioner=iid", *MOMENTUM)
QUICK = Form((Setting("digits", "MLP", "IID", "momentum", TINY, 0.05, 20),), seeds=(0,), walk=3)


def sizes(prefix: str, size: tuple[int, int]) -> tuple[str, ...]:
    """Overrides of a phase's clients and examples of each."""
    return f"{prefix}cohort_size={size[0]}", f"{prefix}client_batch_size={size[1]}"


def contenders(rounds: int) -> dict[str, tuple[str, ...]]:
    """Overrides of each; all but the large batch run four times as many rounds as that."""
    fixed = ("controller=fixed", "learning_rate.rule=constant")
    long, small = (f"rounds={4 * rounds}",), sizes("", SMALL)
    switch = ("controller=noise_scale_switch", *small, *long)
    return {
        "small": (*fixed, *small, *long),
        "large": (*fixed, *sizes("", LARGE), f"rounds={rounds}"),
        "middle": (*fixed, *sizes("", MIDDLE), *long),
        "schedule": (
            *("controller=schedule", f"controller.starts.large={rounds // 2}", *small, *long),
            *sizes("controller.phases.large.", LARGE),
        ),
        "switch to large": (*switch, *sizes("controller.large.", LARGE)),
        "switch to middle": (*switch, *sizes("controller.large.", MIDDLE)),
        "adaptive": (
            *("controller=adaptive", *small, *long, "controller.exchange_rate=200", "controller.min_cohort_size=8"),
            "controller.max_cohort_size=64",
        ),
    }


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("switching", SUMMARY, "digits, a tiny model, one seed", arguments) as study:
        form = QUICK if study.quick else FULL
        rows = pl.DataFrame([row for setting in form.settings for row in measure(form, setting, study.runs)])
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(form: Form, setting: Setting, runs: Path) -> list[dict[str, Any]]:
    """Rows of a setting: contender, seed, axis and budget; budgets are what the small or the large run comes to."""
    every = f"evaluate_every_rounds={max(1, setting.rounds // 25)}"
    common = (*setting.overrides, "executor=fused", "checkpoint_every_rounds=0", every)
    found: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for name, options in contenders(setting.rounds).items():

        def run(rate: float, seed: int, options: tuple[str, ...] = options) -> Path:
            return run_once(runs, [*common, *options, f"server_optimizer.lr={rate:.4g}", f"seed={seed}"])

        if not found:
            found = budgets(costs(run(setting.rate, TUNING_SEED)), setting.rounds, SMALL[0], LARGE)

        def loss(rate: float, run: Callable[[float, int], Path] = run, found: dict[str, float] = found) -> float:
            record = costs(run(rate, TUNING_SEED))
            return -float(np.mean([accuracy_at(record, axis, budget) for axis, budget in found.items()]))

        rate = tuned(loss, setting.rate, runs=form.walk)
        for seed in form.seeds:
            record = costs(run(rate, seed))
            start: dict[str, Any] = {"task": setting.task, "model": setting.model, "partition": setting.partition}
            start |= {"optimizer": setting.optimizer, "controller": name, "seed": seed, "rate": rate}
            for axis, budget in found.items():
                row = {"axis": axis, "target": setting.target, "cost_to_target": cost_to(record, axis, setting.target)}
                for share in SHARES:
                    accuracy = accuracy_at(record, axis, share * budget)
                    rows.append(start | row | {"budget": share * budget, "share": share, "test_accuracy": accuracy})
        last = " ".join(f"{100 * row['test_accuracy']:.1f}" for row in rows[-len(SHARES) * len(found) :])
        print(f"{setting.model}, {setting.partition}, {name}, lr {rate:.3g}: {last}", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
