"""Three claims of DP-BERT on a small masked language model: mega-batches, a rising batch, weight decay.

    python -m simulations.dp_language                  fifty minutes of CPU time; resumable
    python -m simulations.dp_language --quick          tiny, under a minute
    python -m simulations.dp_language --device cuda    the same grid on a GPU

A BERT of one layer on 4,096 sequences of six characters; the protected unit is a sequence, and the largest batch is all
of them. AdamW's rate rises for 20 steps and falls linearly to zero. Its height is walked with a seed that is not
reported, for every batch; at epsilon 2, that of the second is between those beside it. Rising batches and weight
decays take the rate of the fixed batch without decay. Writes docs/results/dp_language.parquet and .md, and
docs/figures/dp_language.png.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from simulations.dp_language_data import GROUPS, NORMS
from simulations.dp_language_figure import save_figure
from simulations.dp_language_report import markdown
from simulations.study import Study, command
from simulations.study_runs import final, run_once, status
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
CLIENTS = 4
TUNING_SEED = 100
START_RATE = 0.016
FIRST = 0.1875
"""Share of the rounds in which a rising batch is a quarter of the last one; for as many more it is half of it."""


@dataclass(frozen=True)
class Form:
    """One form of the study.

    Attributes:
        common: overrides of all runs.
        units: sequences in all, and the largest batch.
        rounds: T.
        batches: rising by equal factors; the last but one is where all but the batch is varied.
        epsilons: the first is where all but epsilon is varied; infinity is without privacy.
        decays: weight decay beside 0.
        seeds: of the reported runs.
        dear: how many of them the dearest runs have: the largest batch but at the first epsilon
            and fixed, and small ones with more steps.
        walk: most runs of a search for a learning rate.
        evaluations: of a run.
    """

    common: tuple[str, ...]
    units: int
    rounds: int
    batches: tuple[int, ...]
    epsilons: tuple[float, ...]
    decays: tuple[float, ...]
    seeds: tuple[int, ...]
    dear: int
    walk: int
    evaluations: int


@dataclass(frozen=True)
class Setting:
    """What a run is of, but for its rate and seed.

    Attributes:
        batch: sequences of a step, expected; of a rising batch the last.
        epsilon: of the whole run.
        rounds: steps.
        rising: `privacy.noise_schedule` of a batch that doubles twice on its way; empty for a fixed one.
        decay: weight decay of AdamW, times the rate in each step.
    """

    batch: int
    epsilon: float
    rounds: int
    rising: str = ""
    decay: float = 0.0


PLAYS = (
    *("dataset=shakespeare_roles", "dataset._target_=simulations.dp_language_data.sequences", "~dataset.task"),
    *("~dataset.test_fraction", "~dataset.min_sequences", "~dataset.mask_fraction", "dataset.context=6"),
    *("partitioner=iid", f"population={CLIENTS}", f"cohort_size={CLIENTS}", "sampling=all", "executor=fused"),
    *("model=bert", "model.layers=1", "model.heads=2", "report=none"),
    *("server_optimizer=adamw", "server_optimizer.betas=[0.9,0.99]", "learning_rate.rule=constant"),
    *("learning_rate.decay=linear", "+tracker.norms._target_=simulations.dp_language_data.Norms"),
)
FULL = Form(
    (*PLAYS, "model.width=32", "+dataset.units=4096", "+dataset.test=4096", "learning_rate.warmup_rounds=20"),
    units=4096,
    rounds=400,
    batches=(64, 256, 1024, 4096),
    epsilons=(8.0, math.inf, 2.0),
    decays=(0.03, 0.1, 0.3, 1.0),
    seeds=(0, 1, 2, 3, 4),
    dear=3,
    walk=7,
    evaluations=20,
)
QUICK = Form(
    (*PLAYS, "model.width=8", "+dataset.units=256", "+dataset.test=128", "learning_rate.warmup_rounds=2"),
    units=256,
    rounds=8,
    batches=(16, 64, 256),
    epsilons=(8.0, math.inf),
    decays=(0.3,),
    seeds=(0,),
    dear=1,
    walk=1,
    evaluations=2,
)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the tables and the figure."""
    with command("dp_language", SUMMARY, "a tiny model, eight steps, one seed", arguments, True, True) as study:
        form = QUICK if study.quick else FULL
        cells = [partial(measure, study, form, epsilon) for epsilon in form.epsilons]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def settings(form: Form, epsilon: float) -> list[Setting]:
    """Those of one epsilon: batches at equal steps; at the first, equal examples, rising batches and decays as well."""
    *_, before, middle, largest = form.batches
    found = [Setting(batch, epsilon, form.rounds) for batch in form.batches]
    if epsilon != form.epsilons[0]:
        return found
    found += [Setting(batch, epsilon, form.rounds * middle // batch) for batch in (before, largest)]
    found += [Setting(middle, epsilon, form.rounds, decay=decay) for decay in form.decays]
    fixed = [Setting(batch, epsilon, form.rounds) for batch in (middle, largest)]
    return found + [rising(of, noise) for of in fixed for noise in ("constant", "proportional")]


def rising(fixed: Setting, noise: str) -> Setting:
    """A quarter, half and all of the batch, as in DP-BERT, for as many examples as ``fixed`` sees.

    Args:
        fixed: with the last batch.
        noise: "constant" noise multiplier, or "proportional" to the batch: constant noise of the mean.

    >>> rising(Setting(1024, 8.0, 400), "constant").rounds
    522
    """
    return replace(fixed, rounds=int(fixed.rounds / (1 - FIRST * (0.75 + 0.5))), rising=noise)


def measure(study: Study, form: Form, epsilon: float) -> list[dict[str, Any]]:
    """Rows of all settings of one epsilon, a row for each evaluated round of each run."""
    rows: list[dict[str, Any]] = []

    def run(setting: Setting, rate: float, seed: int) -> Path:
        folder = run_once(study.runs, overrides(study, form, setting, rate, seed))
        tuning = seed == TUNING_SEED
        rows.extend({**read, "rate": rate, "seed": seed, "tuning": tuning} for read in curve(folder, setting))
        return folder

    @cache
    def rate(batch: int) -> float:
        """Walked from that of the batch below; at other finite epsilons the second is left out."""
        walked = [of for of in form.batches if of != form.batches[1] or epsilon in (form.epsilons[0], math.inf)]
        if batch not in walked:
            return math.sqrt(rate(form.batches[0]) * rate(form.batches[2]))
        start = START_RATE if batch == form.batches[0] else rate(walked[walked.index(batch) - 1])
        runs = min(form.walk, 4) if batch == form.units else form.walk
        setting = Setting(batch, epsilon, form.rounds)
        return tuned(lambda r: -final(run(setting, r, TUNING_SEED), "test_accuracy"), start, runs=runs)

    for setting in settings(form, epsilon):
        whole = setting.batch == form.units
        dear = whole and (epsilon != form.epsilons[0] or bool(setting.rising))
        dear |= setting.rounds > form.rounds and not setting.rising
        seeds = form.seeds[: form.dear] if dear else form.seeds
        for seed in (TUNING_SEED, *seeds) if setting.decay else seeds:
            run(setting, rate(setting.batch), seed)
    return rows


def overrides(study: Study, form: Form, setting: Setting, rate: float, seed: int) -> list[str]:
    """The command line of a run."""
    size, every = setting.batch // CLIENTS, max(1, setting.rounds // form.evaluations)
    controller: Sequence[str] = ("controller=fixed", f"client_batch_size={size}")
    if setting.rising:
        steps = (f"controller.every_rounds={int(FIRST * setting.rounds)}", "controller.times=2")
        controller = ("controller=doubling", "controller.double=batch", f"client_batch_size={size // 4}", *steps)
    private: Sequence[str] = ("privacy=none",)
    if math.isfinite(setting.epsilon):
        private = ("privacy=example_central", f"privacy.target_epsilon={setting.epsilon:g}")
    if setting.rising == "proportional":
        private = (*private, "privacy.noise_schedule=proportional")
    return [
        *form.common,
        *private,
        *controller,
        *(f"rounds={setting.rounds}", f"evaluate_every_rounds={every}", f"checkpoint_every_rounds={every}"),
        *(f"server_optimizer.lr={rate:g}", f"server_optimizer.weight_decay={setting.decay:g}"),
        *(f"seed={seed}", f"device={study.device}"),
    ]


def curve(folder: Path, setting: Setting) -> list[dict[str, Any]]:
    """A row for each evaluated round of a run; of one that failed a row without numbers."""
    told: dict[str, Any] = {"batch": setting.batch, "epsilon": setting.epsilon, "rounds": setting.rounds}
    told |= {"rising": setting.rising, "decay": setting.decay}
    if status(folder) != "finished":
        return [told | dict.fromkeys(("step", "examples", "accuracy", "loss", *GROUPS), math.nan)]
    rows = pl.read_parquet(folder / "rounds.parquet").filter(pl.col("test_accuracy").is_finite())
    rows = rows.with_columns(step=pl.col("round") + 1)
    rows = rows.join(pl.read_parquet(folder / NORMS), left_on="step", right_on="round", how="left")
    names = {"test_accuracy": "accuracy", "test_loss": "loss"}
    chosen = rows.select("step", "examples", *(pl.col(old).alias(new) for old, new in names.items()), *GROUPS)
    return [told | row for row in chosen.cast(pl.Float64).iter_rows(named=True)]


if __name__ == "__main__":
    main()
