"""How large a batch keeps the small batch's loss with AdamW, LAMB and MERIT, from below the critical batch on?

    python -m simulations.large_batch_optimizers            the full grid, an hour of one core; resumable
    python -m simulations.large_batch_optimizers --quick    two optimizers, an ablation, a tiny model: under a minute

A GPT on the plays, clients are speaking roles, FedSGD. Every run sees the same number of tokens; warm-up over a tenth
of them, then cosine decay. The learning rate of every (optimizer, batch) is walked by factors of two, by the mean
validation loss of two seeds that are not reported. Runs at one batch tell the critical batch by `fedbatch critical`;
those of AdamW are asked group by group too, and tell it by the gain curve. Finished runs are skipped. Writes
docs/results/large_batch_optimizers.parquet and .md, and docs/figures/large_batch_optimizers.png.
"""

import math
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl

from fedbatch.core.errors import ConfigError
from fedbatch.results.critical import critical
from simulations.large_batch_optimizers_report import markdown, save_figure
from simulations.optimizer_batches import of_run
from simulations.optimizers import PLAYS, attention
from simulations.study import Study, command
from simulations.study_runs import final, run_once, status
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEEDS = (100, 101)
CLIENT_BATCH = 2
BETAS = "server_optimizer.betas=[0.9,0.95]"
MERIT = ("server_optimizer=merit", BETAS, "server_optimizer.weight_decay=0.01")
LAMB = ("server_optimizer=lamb", BETAS, "server_optimizer.weight_decay=0.01", "server_optimizer.eps=1e-6")
ADAMW = ("server_optimizer=adamw", BETAS, "server_optimizer.weight_decay=0.1")
OPTIMIZERS = {
    "AdamW": (ADAMW, 1.6e-2),
    "LAMB": (LAMB, 1.13e-2),
    "MERIT": (MERIT, 1.13e-2),
    "MERIT, l2 norm": ((*MERIT, "server_optimizer._target_=simulations.merit_ablations.EuclideanMERIT"), 2.26e-2),
    "MERIT, weight-wise": ((*MERIT, "server_optimizer._target_=simulations.merit_ablations.WeightwiseMERIT"), 2.26e-2),
    "AdamW, beta2 0.99": ((*ADAMW, "server_optimizer.betas=[0.9,0.99]"), 1.6e-2),
}
"""Overrides, and the learning rate from which the walk at the smallest of its batches starts."""


@dataclass(frozen=True)
class Form:
    """One form of the study.

    Attributes:
        common: overrides of all runs.
        sequences: budget of each run; tokens are ``context`` times as many.
        context: characters of a sequence.
        batches: global batches by optimizer, in sequences, rising.
        told: the batch whose reported runs tell the critical batch.
        groups: of AdamW's cohort there, in the rounds that measure the gain curve.
        seeds: of the reported runs.
        walk: most rates that are tried.
    """

    common: tuple[str, ...]
    sequences: int
    context: int
    batches: dict[str, tuple[int, ...]]
    told: int
    groups: int
    seeds: tuple[int, ...]
    walk: int


OWN = (*PLAYS, f"client_batch_size={CLIENT_BATCH}", "report=none", "partitioner.seed=0")
GRID = (8, 32, 64, 256, 1024)
CHANGED = {"MERIT, l2 norm": (64, 1024), "MERIT, weight-wise": (64, 1024), "AdamW, beta2 0.99": (256,)}
FULL = Form(
    common=(*OWN, "dataset.context=32", "population=793", "model.layers=2", "model.width=32"),
    sequences=32_768,
    context=32,
    batches=dict.fromkeys(("MERIT", "LAMB", "AdamW"), GRID) | CHANGED,
    told=32,
    groups=16,
    seeds=(0, 1, 2),
    walk=6,
)
QUICK = Form(
    common=(*OWN, "dataset.context=16", "population=960", "model.layers=1", "model.width=16"),
    sequences=2_048,
    context=16,
    batches={"AdamW": (16, 64, 256), "MERIT": (16, 64, 256), "MERIT, weight-wise": (256,)},
    told=16,
    groups=4,
    seeds=(0,),
    walk=3,
)

SCHEMA: dict[str, Any] = {
    **{"optimizer": pl.String, "batch": pl.Int64, "rounds": pl.Int64, "tokens": pl.Int64, "rate": pl.Float64},
    **{"seed": pl.Int64, "tuning": pl.Boolean, "status": pl.String, "loss": pl.Float64, "seconds": pl.Float64},
    **{"evaluated": pl.List(pl.Int64), "logits": pl.List(pl.List(pl.Float64))},
    **{f"trust_ratio_{which}": pl.Float64 for which in ("min", "median", "max")},
    **{name: pl.Float64 for name in ("told_loss", "told_noise_scale", "told_b_half")},
}
"""Columns of the rows, a run each; ``told_*`` are in sequences."""


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    quick = "two optimizers, an ablation, a tiny model"
    with command("large_batch_optimizers", SUMMARY, quick, arguments, True, True) as study:
        form = QUICK if study.quick else FULL
        rows = pl.DataFrame(study.rows([partial(measure, study, form, name) for name in form.batches]), SCHEMA)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(study: Study, form: Form, name: str) -> list[dict[str, Any]]:
    """Rows of all runs of an optimizer; the walk at a batch starts where that of the batch before ended.

    A walk from below finds the edge of stability. One from above it takes noise for a minimum: with AdamW at 256, a
    start by the square root of the batch ended at a loss of 2.78, where a tenth of that rate gives 2.43.
    """
    rows, (_, rate) = [], OPTIMIZERS[name]
    for batch in form.batches[name]:

        def run(rate: float, seed: int, batch: int = batch) -> dict[str, Any]:
            tuning = seed in TUNING_SEEDS
            row = {"optimizer": name, "batch": batch, "rounds": form.sequences // batch, "seed": seed, "rate": rate}
            row |= {"tokens": form.sequences * form.context, "tuning": tuning}
            row |= of_run_folder(run_once(study.runs, overrides(study, form, name, batch, rate, seed)))
            rows.append(row)
            shown = f"{name}, batch {batch}, lr {rate:.3g}, seed {seed}: {row['loss']:.3f}"
            print(shown, file=sys.stderr, flush=True)
            return row

        def loss(rate: float) -> float:
            seeds = TUNING_SEEDS[: len(form.seeds)]
            return float(np.mean([run(rate, seed)["loss"] for seed in seeds]))

        rate = tuned(loss, rate, runs=form.walk)
        for seed in form.seeds:
            run(rate, seed)
    return rows


def overrides(study: Study, form: Form, name: str, batch: int, rate: float, seed: int) -> list[str]:
    """The command line of a run; reported runs at one batch are evaluated more often, for `fedbatch critical`."""
    rounds = form.sequences // batch
    tells = batch == form.told and seed not in TUNING_SEEDS
    groups = form.groups if tells and name == "AdamW" else 0
    return [
        *form.common,
        *OPTIMIZERS[name][0],
        *(f"cohort_size={batch // CLIENT_BATCH}", f"rounds={rounds}", f"learning_rate.warmup_rounds={rounds // 10}"),
        *(f"server_optimizer.lr={rate:.4g}", f"seed={seed}", f"device={study.device}"),
        *((f"noise_scale.groups={groups}", "noise_scale.every=4") if groups else ()),
        *(("training_set_examples=500",) if tells else ()),
        f"evaluate_every_rounds={rounds // (32 if tells else 8)}",
    ]


def of_run_folder(folder: Path) -> dict[str, Any]:
    """What is told of a run."""
    row = {"status": status(folder), "loss": final(folder, "test_loss"), **attention(folder)}
    if status(folder) != "finished":
        return row
    record = pl.read_parquet(folder / "rounds.parquet")
    ratios = [column for column in SCHEMA if column.startswith("trust_ratio") and column in record.columns]
    # The median round, because in the first ones every optimizer's moments are young.
    row |= {column: float(np.median(record[column].to_numpy())) for column in ratios}
    row["seconds"] = final(folder, "measured_seconds")
    return row | (told(folder, record) if "training_set_loss" in record.columns else {})


def told(folder: Path, record: pl.DataFrame) -> dict[str, float]:
    """The critical batch up to the run's last loss: by `fedbatch critical`, and by the same sums with B_half."""
    try:
        said = critical(folder).goals[-1]
    except ConfigError:  # its loss does not fall
        return {}
    row = {"told_loss": said.loss, "told_noise_scale": said.b_crit}
    if "b_half" not in record.columns:
        return row
    halves = record["b_half"].fill_null(strategy="backward").fill_null(strategy="forward")
    least, examples = of_run(halves[: math.ceil(said.steps)].to_numpy(), float(record["global_batch"][0]))
    return row | {"told_b_half": float(examples / least) if least else math.inf}


if __name__ == "__main__":
    main()
