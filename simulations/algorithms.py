"""Which client algorithm, which compressor? All on one task whose clients differ, by rounds, bytes and seconds.

    python -m simulations.algorithms             three seeds; half an hour of a busy core
    python -m simulations.algorithms --quick     digits, one seed, a few rounds

Every client has images of two classes. Each algorithm has its own client learning rate, walked by factors of 2 on a
seed of its own, by the mean accuracy over the run. Writes docs/results/algorithms.parquet and .md, and
docs/figures/algorithms.png.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from simulations.algorithms_report import markdown, save_figure
from simulations.study import Study, command
from simulations.study_runs import run_once, status
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100
MEAN = ("server_optimizer=sgd", "server_optimizer.lr=1", "controller=fixed")
OUTER = ("server_optimizer=sgd", "server_optimizer.momentum=0.9", "server_optimizer.nesterov=true")
COMPRESSORS: dict[str, tuple[str, ...]] = {
    "FedAvg, half": ("compression=half",),
    "FedAvg, QSGD 7": ("compression=qsgd",),
    "FedAvg, sign": ("compression=sign",),
    "FedAvg, top 5 %": ("compression=top_k", "compression.stages.top_k.share=0.05"),
    "FedAvg, rand 25 %": ("compression=rand_k", "compression.stages.rand_k.share=0.25"),
    "FedAvg, PowerSGD 2": ("compression=power_sgd",),
}
"""Updates of FedAvg in fewer bytes; sign, top-k and PowerSGD with error feedback."""
ALGORITHMS: dict[str, tuple[float, tuple[str, ...]]] = {
    "FedAvg": (0.1, ("client_work=local_sgd", *MEAN)),
    "FedProx": (0.1, ("client_work=local_sgd", "client_work.proximal=0.1", *MEAN)),
    "local momentum": (0.02, ("client_work=local_momentum", *MEAN)),
    "local AdamW": (0.002, ("client_work=local_adamw", *MEAN)),
    "SCAFFOLD": (0.1, ("client_work=scaffold", *MEAN)),
    "FedDyn": (0.1, ("client_work=feddyn", *MEAN)),
    "FedNova": (0.1, ("client_work=fednova", *MEAN)),
    "DiLoCo": (0.002, ("client_work=diloco", *OUTER, "server_optimizer.lr=0.4", "controller=fixed")),
    "Ditto": (0.1, ("client_work=ditto", *MEAN)),
    "FedPer": (0.1, ("client_work=fedper", *MEAN)),
    **{name: (0.1, ("client_work=local_sgd", *MEAN, *options)) for name, options in COMPRESSORS.items()},
}
"""First client learning rate of the walk, and overrides."""
COLUMNS = ("rounds", "bytes_up", "bytes_down", "simulated_seconds", "test_accuracy", "noise_scale")
CLIENTS = ("client_accuracy_p5", "client_accuracy_p50")


@dataclass(frozen=True)
class Form:
    """One form of the study; runs of a client are ``epochs`` passes over its data."""

    common: tuple[str, ...]
    seeds: tuple[int, ...]
    walk: int
    target: float


SHARED = (
    *("partitioner=pathological", "partitioner.num_classes_per_partition=2", "partitioner.seed=0", "cohort_size=10"),
    *("client_batch_size=10", "client_holdout=0.2", "weighting=uniform", "checkpoint_every_rounds=0", "report=none"),
)
FULL = Form(
    (*SHARED, "dataset=fashion_mini", "population=100", "rounds=150", "evaluate_every_rounds=5"), (0, 1, 2), 5, 0.7
)
QUICK = Form(
    (*SHARED, "dataset=digits", "population=20", "model.width=16", "rounds=6", "evaluate_every_rounds=2"), (0,), 1, 0.3
)


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, write the table and the figure."""
    with command("algorithms", SUMMARY, "digits, one seed, a few rounds", arguments, True) as study:
        form = QUICK if study.quick else FULL
        rows = pl.DataFrame(study.rows([partial(measure, study, form, name) for name in ALGORITHMS]))
        study.save(rows)
        study.tell(markdown(rows, form.target))
        save_figure(rows, study.figure())


def measure(study: Study, form: Form, name: str) -> list[dict[str, Any]]:
    """Rows of an algorithm: seed and evaluation."""
    start, options = ALGORITHMS[name]

    def loss(rate: float) -> float:
        found = curve(study, form, options, rate, TUNING_SEED)
        return float("nan") if found is None else -float(np.mean(found["test_accuracy"].to_numpy()))

    rate = tuned(loss, start, runs=form.walk)
    rows: list[dict[str, Any]] = []
    for seed in form.seeds:
        found = curve(study, form, options, rate, seed)
        if found is not None:
            rows += [{"algorithm": name, "seed": seed, "client_lr": rate, **row} for row in found.to_dicts()]
    return rows


def curve(study: Study, form: Form, options: tuple[str, ...], rate: float, seed: int) -> pl.DataFrame | None:
    """What was evaluated along a run; None for one that failed."""
    epochs = () if "client_work=diloco" not in options else ("client_work.steps=8",)
    folder = run_once(study.runs, [*form.common, *options, *epochs, f"client_work.lr={rate:.4g}", f"seed={seed}"])
    if status(folder) != "finished":
        return None
    rows = pl.read_parquet(folder / "rounds.parquet", columns=[*COLUMNS, *CLIENTS])
    return rows.filter(pl.col("test_accuracy").is_finite())


if __name__ == "__main__":
    main()
