"""Small, large, or a switch between them: who wins at equal rounds, examples, bytes and simulated seconds?

    python -m simulations.switching             all settings; over an hour of one core
    python -m simulations.switching --quick     digits, tiny, one seed, about a minute

Every contender gets its own learning rate, tuned on one grid by the mean accuracy over all cost axes with a seed that
is not reported. The controllers are our own design; see docs/phases.md. Finished runs are skipped. Writes
docs/results/switching.parquet and .md, and docs/figures/switching.png.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl

from simulations.study import command
from simulations.study_runs import run_once
from simulations.switching_costs import AXES, LINKS, accuracy_at, budgets, cost_to, costs
from simulations.switching_report import FRONT, markdown, save_figure
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100
SMALL, LARGE, MIDDLE = (16, 4), (64, 16), (64, 4)  # clients, examples of each
SHARES = (0.5, 1.0)  # of the budgets
SCALED = {"large, sqrt lr": 0.5, "large, linear lr": 1.0}  # exponent of the ratio of batches
GOODPUT_ROUNDS = {"rounds": 1, "examples": 4, "bytes": 4, "seconds, LAN": 3, "seconds, WAN": 1.25}
"""Rounds that surely spend the budget, in those of the large batch."""


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
    target: float = 0.82


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
        Setting("Fashion", "CNN", "IID", "momentum", (*IID, *MOMENTUM, *CNN), 0.02, 60, 0.75),
        Setting("Fashion", "CNN", "Dirichlet 0.3", "momentum", (*SKEWED, *MOMENTUM, *CNN), 0.02, 60, 0.75),
    ),
    seeds=(0, 1, 2),
    walk=9,
)
TINY = ("dataset=digits", "population=64", "model.width=16", "partitioner=iid", *MOMENTUM)
QUICK = Form((Setting("digits", "MLP", "IID", "momentum", TINY, 0.05, 20),), seeds=(0,), walk=3)


def sizes(prefix: str, size: tuple[int, int]) -> tuple[str, ...]:
    """Overrides of a phase's clients and examples of each."""
    return f"{prefix}cohort_size={size[0]}", f"{prefix}client_batch_size={size[1]}"


def contenders(rounds: int) -> dict[str, dict[str, tuple[str, ...]]]:
    """Overrides of each by cost axis; those that may stay small run four times as many rounds as the large batch.

    Only goodput is told the axis, and it runs as long as its budget may last. Scaled rates are factors on the small
    batch's, by the square root and linearly.
    """
    fixed = ("controller=fixed", "learning_rate.rule=constant")
    long, small = (f"rounds={4 * rounds}",), sizes("", SMALL)
    large = (*fixed, *sizes("", LARGE), f"rounds={rounds}")
    told = {
        "small": (*fixed, *small, *long),
        "large": large,
        "middle": (*fixed, *sizes("", MIDDLE), *long),
        **dict.fromkeys(SCALED, large),
        "schedule": (
            *("controller=schedule", f"controller.starts.large={rounds // 2}", *small, *long),
            *sizes("controller.phases.large.", LARGE),
        ),
        "switch": ("controller=two_phase_switch", *small, *long, *sizes("controller.large.", LARGE)),
        "adaptive": (
            *("controller=adaptive", *small, *long, "controller.exchange_rate=200", "controller.min_cohort_size=8"),
            "controller.max_cohort_size=64",
        ),
    }
    goodput = ("controller=goodput", *small, *sizes("controller.phases.middle.", MIDDLE))
    goodput = (*goodput, *sizes("controller.phases.large.", LARGE))
    return {name: dict.fromkeys(AXES, options) for name, options in told.items()} | {
        "goodput": {
            axis: (*goodput, f"controller.cost={axis.split(',')[0]}", f"rounds={int(share * rounds)}", *link(axis))
            for axis, share in GOODPUT_ROUNDS.items()
        }
    }


def link(axis: str) -> tuple[str, ...]:
    """Overrides of the time model that an axis of seconds stands for."""
    return tuple(f"time_model.{name}={value:g}" for name, value in vars(LINKS[axis]).items()) if axis in LINKS else ()


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("switching", SUMMARY, "digits, a tiny model, one seed", arguments, True) as study:
        form = QUICK if study.quick else FULL
        rows = pl.DataFrame(study.rows([partial(measure, form, setting, study.runs) for setting in form.settings]))
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(form: Form, setting: Setting, runs: Path) -> list[dict[str, Any]]:
    """Rows of a setting: contender, seed, axis and budget; budgets are what the small or the large run comes to."""
    every = f"evaluate_every_rounds={max(1, setting.rounds // 25)}"
    common = (*setting.overrides, "executor=fused", "checkpoint_every_rounds=0", every)
    rows: list[dict[str, Any]] = []
    rates: dict[str, float] = {}

    def record(options: tuple[str, ...], rate: float, seed: int) -> pl.DataFrame | None:
        return costs(run_once(runs, [*common, *options, f"server_optimizer.lr={rate:.4g}", f"seed={seed}"]))

    names = contenders(setting.rounds)
    budget = budgets(record(names["small"]["rounds"], setting.rate, TUNING_SEED), setting.rounds, SMALL[0], LARGE)

    def loss(by_axis: dict[str, tuple[str, ...]], rate: float) -> float:
        found = {options: record(options, rate, TUNING_SEED) for options in set(by_axis.values())}
        return -float(np.mean([accuracy_at(found[by_axis[axis]], axis, budget[axis]) for axis in AXES]))

    for name, by_axis in names.items():
        if name in SCALED:
            ratio = LARGE[0] * LARGE[1] / (SMALL[0] * SMALL[1])
            rates[name] = rates["small"] * ratio ** SCALED[name]
        else:
            rates[name] = tuned(partial(loss, by_axis), setting.rate, runs=form.walk)
        for seed in form.seeds:
            found = {options: record(options, rates[name], seed) for options in set(by_axis.values())}
            start: dict[str, Any] = {"task": setting.task, "model": setting.model, "partition": setting.partition}
            start |= {"optimizer": setting.optimizer, "controller": name, "seed": seed, "rate": rates[name]}
            for axis, options in by_axis.items():
                cost = {f"{other}_to_target": cost_to(found[options], other, setting.target) for other in FRONT}
                cost |= {"target": setting.target, "cost_to_target": cost_to(found[options], axis, setting.target)}
                for share in SHARES:
                    accuracy = accuracy_at(found[options], axis, share * budget[axis])
                    spent = {"axis": axis, "share": share, "budget": share * budget[axis], "test_accuracy": accuracy}
                    rows.append(start | spent | cost)
        last = " ".join(f"{100 * row['test_accuracy']:.1f}" for row in rows[-len(SHARES) * len(AXES) :])
        told = f"{setting.model}, {setting.partition}, {setting.optimizer}: {name}, lr {rates[name]:.3g}: {last}"
        print(told, file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
