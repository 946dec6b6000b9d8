"""Large-batch optimizers at a fixed number of tokens: who keeps the small batch's loss in fewer, larger steps?

    python -m simulations.optimizers             the full grid, about half an hour on one core
    python -m simulations.optimizers --quick     two batches, one seed, under two minutes

A GPT on the plays, clients are speaking roles, FedSGD. The learning rate of every (optimizer, batch) is tuned on one
grid of factor two by the final validation loss of a seed that is not reported. Warm-up over a tenth of the steps, then
cosine decay. Finished runs are skipped. Writes docs/results/optimizers.parquet and .md, docs/figures/optimizers.png.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from simulations.optimizers_report import markdown, save_figure
from simulations.study import command
from simulations.study_runs import final, run_once, status
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
CLIENT_BATCH = 8
TUNING_SEED = 100
ADAM = "server_optimizer.betas=[0.9,0.99]"
OPTIMIZERS = {
    "AdamW": (("server_optimizer=adamw", ADAM, "server_optimizer.weight_decay=0.1"), 4e-3),
    "LARS": (("server_optimizer=lars", "server_optimizer.trust_coefficient=1", "server_optimizer.eps=0"), 1.6e-2),
    "LAMB": (
        ("server_optimizer=lamb", ADAM, "server_optimizer.eps=1e-6", "server_optimizer.weight_decay=0.01"),
        1.6e-2,
    ),
    "MERIT": (("server_optimizer=merit", "server_optimizer.weight_decay=0.01"), 8e-3),
}
"""Overrides and the learning rate from which the walk starts at the smallest batch."""


@dataclass(frozen=True)
class Form:
    """One form of the study.

    Attributes:
        common: overrides of all runs.
        sequences: budget of each run; tokens are ``context`` times as many.
        context: characters of a sequence.
        batches: global batches, in sequences.
        seeds: of the reported runs.
        walk: most runs of a search for a learning rate.
    """

    common: tuple[str, ...]
    sequences: int
    context: int
    batches: tuple[int, ...]
    seeds: tuple[int, ...]
    walk: int


PLAYS = (
    *("dataset=shakespeare_roles", "dataset.min_sequences=16", "dataset.test_fraction=0.02", "partitioner=natural"),
    *("model=gpt", "model.heads=2", "controller=fixed", "executor=fused", "checkpoint_every_rounds=0"),
    *("record_attention=true", "learning_rate.decay=cosine", f"client_batch_size={CLIENT_BATCH}"),
)
FULL = Form(
    common=(*PLAYS, "dataset.context=32", "population=793", "model.layers=3", "model.width=48"),
    sequences=16_384,
    context=32,
    batches=(16, 64, 256, 1024),
    seeds=(0, 1, 2),
    walk=9,
)
QUICK = Form(
    common=(*PLAYS, "dataset.context=16", "population=960", "model.layers=1", "model.width=16"),
    sequences=2_048,
    context=16,
    batches=(32, 256),
    seeds=(0,),
    walk=3,
)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("optimizers", SUMMARY, "two batches, one seed, a tiny model", arguments) as study:
        form = QUICK if study.quick else FULL
        rows = pl.DataFrame([row for name in OPTIMIZERS for row in measure(form, name, study.runs)])
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(form: Form, name: str, runs: Path) -> list[dict[str, Any]]:
    """Rows of an optimizer, a seed and batch each; the walk at a batch starts where the one before ended."""
    rows, (options, rate) = [], OPTIMIZERS[name]
    for batch in form.batches:
        rounds = form.sequences // batch
        sizes = (f"cohort_size={batch // CLIENT_BATCH}", f"rounds={rounds}", f"evaluate_every_rounds={rounds // 8}")
        common = (*form.common, *options, *sizes, f"learning_rate.warmup_rounds={rounds // 10}")

        def run(rate: float, seed: int, common: tuple[str, ...] = common) -> Path:
            return run_once(runs, [*common, f"server_optimizer.lr={rate:.4g}", f"seed={seed}"])

        def tuning_loss(rate: float, run: Callable[[float, int], Path] = run) -> float:
            return final(run(rate, TUNING_SEED), "test_loss")

        rate = tuned(tuning_loss, rate, runs=form.walk)
        for seed in form.seeds:
            folder = run(rate, seed)
            row = {"optimizer": name, "batch": batch, "rounds": rounds, "tokens": form.sequences * form.context}
            row |= {"rate": rate, "seed": seed, "status": status(folder), "loss": final(folder, "test_loss")}
            rows.append(row | attention(folder))
            print(f"{name}, batch {batch}, lr {rate:.2g}, seed {seed}: {row['loss']:.3f}", file=sys.stderr, flush=True)
    return rows


def attention(folder: Path) -> dict[str, list[Any]]:
    """Rounds that were evaluated, and the largest logit of each layer in them."""
    if status(folder) != "finished":
        return {"evaluated": [], "logits": []}
    rows = pl.read_parquet(folder / "rounds.parquet").drop_nulls("attention_logit_max")
    logits = [[max(heads) for heads in layers] for layers in rows["attention_logit_max"].to_list()]
    return {"evaluated": rows["rounds"].to_list(), "logits": logits}


if __name__ == "__main__":
    main()
