"""Large-batch optimizers with four times the tokens of `simulations.optimizers`: who keeps the small batch's loss?

    python -m simulations.optimizers_long --device cuda --jobs 15    some six minutes of a GPU and of 16 cores
    python -m simulations.optimizers_long --quick                    two optimizers, a tiny model

The learning rate of every (optimizer, batch) is walked by factors of two, by the mean final validation loss of two
seeds that are not reported. Warm-up over a tenth of the tokens, then cosine decay. Finished runs are skipped. Writes
docs/results/optimizers_long.parquet and .md, docs/figures/optimizers_long.png.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from simulations.optimizers import CLIENT_BATCH, OPTIMIZERS, PLAYS, QUICK, Form, attention
from simulations.optimizers_report import markdown, save_figure
from simulations.study import command
from simulations.study_runs import final, run_once, status
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEEDS = (100, 101)
MUON = ("server_optimizer=muon", "server_optimizer.weight_decay=0.1")
COMPARED = {name: OPTIMIZERS[name] for name in ("AdamW", "LAMB", "MERIT")} | {"Muon": (MUON, 4e-3)}
"""Overrides, and the learning rate from which the walk starts at the smallest batch."""
LONG = Form(
    common=(*PLAYS, "dataset.context=64", "population=619", "model.layers=3", "model.width=64"),
    sequences=32_768,
    context=64,
    batches=(64, 128, 256, 512, 1024),
    seeds=(0, 1, 2),
    walk=5,
)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("optimizers_long", SUMMARY, "two optimizers, a tiny model", arguments, True, True) as study:
        form, names = (QUICK, list(COMPARED)[2:]) if study.quick else (LONG, list(COMPARED))
        form = replace(form, common=(*form.common, f"device={study.device}"))
        # The longest first: a batch of half the size has twice the steps.
        cells = [partial(measure, study.runs, form, name, batch) for batch in form.batches for name in names]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        rows = rows.sort(pl.col("optimizer").cast(pl.Enum(names)), "batch", "seed", maintain_order=True)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(runs: Path, form: Form, name: str, batch: int) -> list[dict[str, Any]]:
    """Rows of an optimizer and batch, one a seed. The walk starts where the square root of the batch says."""
    options, first = COMPARED[name]
    rounds = form.sequences // batch
    sizes = (f"cohort_size={batch // CLIENT_BATCH}", f"rounds={rounds}", f"evaluate_every_rounds={max(rounds // 8, 1)}")
    common = [*form.common, *options, *sizes, f"learning_rate.warmup_rounds={rounds // 10}"]

    def run(rate: float, seed: int) -> Path:
        return run_once(runs, [*common, f"server_optimizer.lr={rate:.4g}", f"seed={seed}"])

    def tuning_loss(rate: float) -> float:
        losses = [final(run(rate, seed), "test_loss") for seed in TUNING_SEEDS[: len(form.seeds)]]
        return sum(losses) / len(losses)

    rate = tuned(tuning_loss, first * (batch / form.batches[0]) ** 0.5, runs=form.walk)
    rows = []
    for seed in form.seeds:
        folder = run(rate, seed)
        row = {"optimizer": name, "batch": batch, "rounds": rounds, "tokens": form.sequences * form.context}
        row |= {"rate": rate, "seed": seed, "status": status(folder), "loss": final(folder, "test_loss")}
        rows.append(row | attention(folder))
    return rows


if __name__ == "__main__":
    main()
