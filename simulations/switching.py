"""Small, large, or a controller between them: who wins at equal rounds, examples, bytes and simulated seconds?

    make data && python -m simulations.switching    all settings; about an hour and a half of two cores
    python -m simulations.switching --quick         digits, tiny, one seed, about a minute

Every contender is averaged (averaging=polynomial). Fixed batches, and controllers that are told nothing, have a rate of
their own, tuned by a walk on a grid with two seeds that are not reported, by the mean accuracy over all cost axes. The
controllers are our own design; see docs/phases.md. Finished runs are skipped. Writes docs/results/switching.parquet and
.md, and figures switching.png and switching_steep.png.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl

from simulations.study import command
from simulations.study_runs import run_once
from simulations.switching_contenders import FIXED, LARGE, SMALL, Contender, contenders
from simulations.switching_costs import AXES, Budget, accuracy_at, budgets, cost_to, costs, spends
from simulations.switching_figures import save_figure, save_steep
from simulations.switching_report import FRONT, SHARES, markdown
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEEDS = (100, 101)
LENGTHS = (1.5, 4.0)  # of a run, in rounds of the large batch: the second where the first does not spend all budgets
BELOW = 0.01  # the target is so far below what each fixed batch comes to


@dataclass(frozen=True)
class Setting:
    """A task by name, and how it is run.

    Attributes:
        overrides: of all its runs.
        rate: learning rate from which the searches start.
        rounds: R, of the large batch.
        seeds: of the reported runs.
        untold: contenders that are told nothing, beside the fixed batches.
        told: contenders that are told the axis and its budget run too.
    """

    model: str
    partition: str
    optimizer: str
    overrides: tuple[str, ...]
    rate: float
    rounds: int
    seeds: tuple[int, ...]
    untold: tuple[str, ...] = ("ladder",)
    told: bool = False


MOMENTUM, ADAM = ("server_optimizer=sgd", "server_optimizer.momentum=0.9"), ("server_optimizer=adam",)
OWN = ("~dataset.label_noise", "dataset._target_=simulations.switching_data.fashion")
POOLED, NOISY = (*OWN, "+dataset.pool=2"), (*OWN, "+dataset.label_noise=0.8")
IID = ("partitioner=iid",)
SKEWED = ("partitioner=dirichlet", "partitioner.alpha=0.3", "partitioner.min_partition_size=16")
CNN = (*POOLED, "model=cnn", "model.channels=8", "model.hidden=32")
VGG = (*POOLED, "model=logistic", "model._target_=simulations.switching_data.vgg6")
RESNET = (*POOLED, "model=logistic", "model._target_=simulations.critical_data.resnet8")
TEN, FIVE = tuple(range(10)), tuple(range(5))
EVERYBODY = ("ladder", "old switch", "norm test")
FULL = (
    Setting("MLP", "IID", "momentum", (*OWN, *IID, *MOMENTUM), 0.02, 200, TEN, EVERYBODY, True),
    Setting("CNN", "IID", "momentum", (*IID, *MOMENTUM, *CNN), 0.02, 200, FIVE),
    Setting("ResNet-8", "IID", "momentum", (*IID, *MOMENTUM, *RESNET), 0.05, 60, FIVE),
    Setting("VGG-6", "IID", "momentum", (*IID, *MOMENTUM, *VGG), 0.02, 200, FIVE),
    Setting("MLP", "Dirichlet 0.3", "momentum", (*OWN, *SKEWED, *MOMENTUM), 0.02, 200, TEN, EVERYBODY),
    Setting("MLP, 80 % random labels", "IID", "momentum", (*NOISY, *IID, *MOMENTUM), 0.02, 100, FIVE),
    Setting("MLP", "IID", "Adam", (*OWN, *IID, *ADAM), 0.002, 200, TEN),
)
TINY = ("dataset=digits", "population=64", "model.width=16", "partitioner=iid", *MOMENTUM)
QUICK = (Setting("digits, MLP", "IID", "momentum", TINY, 0.05, 20, (0,), EVERYBODY, True),)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the tables and the figures."""
    with command("switching", SUMMARY, "digits, a tiny model, one seed", arguments, True) as study:
        settings, walk = (QUICK, 3) if study.quick else (FULL, 6)
        rows = pl.DataFrame(study.rows([partial(measure, setting, study.runs, walk) for setting in settings]))
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())
        save_steep(rows, study.figure("_steep"))


Records = Callable[[tuple[str, ...], float, int], pl.DataFrame | None]


def launcher(setting: Setting, runs: Path) -> Records:
    """A function of options, rate and seed to the record of that run."""
    population = () if "dataset=digits" in setting.overrides else ("population=500",)
    common = (*population, *setting.overrides, "report=none", "averaging=polynomial", "checkpoint_every_rounds=0")

    def record(options: tuple[str, ...], rate: float, seed: int) -> pl.DataFrame | None:
        own = ("partitioner.seed=0", f"server_optimizer.lr={rate:.4g}", f"seed={seed}")
        return costs(run_once(runs, [*common, *options, *own]))

    return record


def long_enough(record: Records, rounds: int, budget: Budget | None) -> Records:
    """As ``record``, of as many rounds as spend every budget; of the longest where no budget is known yet."""

    def found(options: tuple[str, ...], rate: float, seed: int) -> pl.DataFrame | None:
        for length in LENGTHS if budget else LENGTHS[-1:]:
            every = f"evaluate_every_rounds={max(1, round(length * rounds / 40))}"
            made = record((*options, f"rounds={round(length * rounds)}", every), rate, seed)
            if made is None or (budget and spends(made, budget)):
                break
        return made

    return found


def measure(setting: Setting, runs: Path, walk: int) -> list[dict[str, Any]]:
    """Rows of a setting: contender, seed and axis; budgets are what the small or the large run comes to."""
    record = launcher(setting, runs)
    small = next(each for each in contenders(setting.rounds, None) if each.name == "small")
    longest = long_enough(record, setting.rounds, None)(small.options["rounds"], setting.rate, TUNING_SEEDS[0])
    budget = budgets(longest, setting.rounds, SMALL[0], LARGE)
    enough = long_enough(record, setting.rounds, budget)
    rates: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    names = {*FIXED, *setting.untold}
    entered = [
        each for each in contenders(setting.rounds, budget) if (setting.told if each.is_told else each.name in names)
    ]
    for each in entered:
        run = record if each.is_told else enough
        rates[each.name] = (
            rates[each.rate_of]
            if each.rate_of
            else tuned(partial(_loss, run, each, budget), rates.get("small", setting.rate), runs=walk)
        )
    target = _target([_scores(enough, each, rates[each.name], budget) for each in entered if each.name in FIXED])
    for each in entered:
        run = record if each.is_told else enough
        for seed in (*setting.seeds, *TUNING_SEEDS):
            found = {options: run(options, rates[each.name], seed) for options in set(each.options.values())}
            start: dict[str, Any] = {"model": setting.model, "partition": setting.partition}
            start |= {"optimizer": setting.optimizer, "controller": each.name, "seed": seed, "rate": rates[each.name]}
            for axis, options in each.options.items():
                row = {"axis": axis, "budget": budget[axis], "target": target, "for_tuning": seed in TUNING_SEEDS}
                row |= {"test_accuracy": accuracy_at(found[options], axis, budget[axis], each.score)}
                row |= {"last_test_accuracy": accuracy_at(found[options], axis, budget[axis], "test_accuracy")}
                row |= {
                    f"at_{s:g}_of_rounds": accuracy_at(found[options], "rounds", s * setting.rounds, each.score)
                    for s in SHARES
                }
                row |= {f"{other}_to_target": cost_to(found[options], other, target, each.score) for other in FRONT}
                rows.append(start | row | {"cost_to_target": cost_to(found[options], axis, target, each.score)})
        told = " ".join(f"{100 * row['test_accuracy']:.1f}" for row in rows[-len(AXES) :])
        name = f"{setting.model}, {setting.partition}, {setting.optimizer}: {each.name}"
        print(f"{name}, lr {rates[each.name]:.3g}: {told}", file=sys.stderr, flush=True)
    return rows


def _scores(run: Records, each: Contender, rate: float, budget: Budget) -> list[float]:
    """Accuracy on every axis, the mean of the tuning seeds."""
    found = {(options, seed): run(options, rate, seed) for options in each.options.values() for seed in TUNING_SEEDS}
    return [
        float(
            np.mean(
                [accuracy_at(found[each.options[axis], seed], axis, budget[axis], each.score) for seed in TUNING_SEEDS]
            )
        )
        for axis in AXES
    ]


def _loss(run: Records, each: Contender, budget: Budget, rate: float) -> float:
    return -float(np.mean(_scores(run, each, rate, budget)))


def _target(scores: list[list[float]]) -> float:
    """The accuracy that every fixed batch has on its best axis, less a point, in steps of half a point."""
    return float(np.floor(200 * (min(np.nanmax(own) for own in scores) - BELOW)) / 200)


if __name__ == "__main__":
    main()
