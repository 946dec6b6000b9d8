"""What moves the noise scale: training itself, unequal clients, local steps, privacy.

    python -m simulations.noise_scale_conditions             all conditions, about ten minutes of one core
    python -m simulations.noise_scale_conditions --quick     sixty rounds, one seed, under a minute

One perceptron on Fashion-MNIST, one batch and learning rate throughout, so that the temperature lr / B stays as it is.
Finished runs are skipped. Writes docs/results/noise_scale_conditions.parquet and .md, and a figure of the same name.
"""

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl
from matplotlib.figure import Figure

from simulations.study import command
from simulations.study_runs import run_once, status
from simulations.tables import spread, table

SUMMARY = __doc__.splitlines()[0]
COMMON = (
    *("controller=fixed", "population=100", "cohort_size=32", "client_batch_size=8", "noise_scale.decay=0.95"),
    *("checkpoint_every_rounds=0", "server_optimizer=sgd", "server_optimizer.lr=0.1"),
)
DIRICHLET = ("partitioner=dirichlet", "partitioner.min_partition_size=8", "noise_scale.halves=true", "executor=fused")
CONDITIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "task": {
        "digits": ("dataset=digits", "executor=fused"),
        "Fashion": ("executor=fused",),
        "Fashion, 20 % random labels": ("dataset.label_noise=0.2", "executor=fused"),
    },
    "clients": {
        "IID": ("noise_scale.halves=true", "executor=fused"),
        **{f"Dirichlet {alpha:g}": (*DIRICHLET, f"partitioner.alpha={alpha:g}") for alpha in (10.0, 1.0, 0.3)},
    },
    "local steps": {
        f"{steps} of lr 0.1": (
            *("client_work=local_sgd", "client_work.epochs=null", f"client_work.steps={steps}", "client_work.lr=0.1"),
            *("server_optimizer.lr=1", "executor=vmap", "partitioner=dirichlet", "partitioner.alpha=0.3"),
            "partitioner.min_partition_size=8",
        )
        for steps in (1, 4, 16)
    },
    "privacy": {
        "none": ("executor=fused", "sampling=all", "cohort_size=100"),
        **{
            f"noise multiplier {sigma:g}": (
                *("privacy=example_distributed", f"privacy.noise_multiplier={sigma:g}", "privacy.min_clients=100"),
                *("privacy.target_epsilon=null", "executor=fused", "sampling=all", "cohort_size=100"),
            )
            for sigma in (0.5, 2.0)
        },
    },
}
COLUMNS = ("noise_scale", "noise_scale_dp", "b_within", "m_drift")
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(frozen=True)
class Form:
    """One form of the study: rounds of a run and seeds."""

    rounds: int
    seeds: tuple[int, ...]


FULL, QUICK = Form(600, (0, 1, 2)), Form(60, (0,))


def main(arguments: list[str] | None = None) -> None:
    """Run, write the table and the figure."""
    with command("noise_scale_conditions", SUMMARY, "sixty rounds, one seed", arguments, True) as study:
        form, names = (QUICK if study.quick else FULL), [(p, name) for p, own in CONDITIONS.items() for name in own]
        cells = [partial(measure, form, study.runs, *cell) for cell in names]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(form: Form, runs: Path, part: str, name: str) -> list[dict[str, Any]]:
    """Of one condition, a row for every seed and tenth of a run: the averages there."""
    rows = []
    options = CONDITIONS[part][name]
    changed = {option.split("=")[0] for option in options}
    common = [option for option in COMMON if option.split("=")[0] not in changed]
    for seed in form.seeds:
        numbers = (f"rounds={form.rounds}", f"evaluate_every_rounds={form.rounds // 10}", f"seed={seed}")
        folder = run_once(runs, [*common, *options, *numbers])
        start = {"part": part, "condition": name, "seed": seed, "status": status(folder)}
        if start["status"] != "finished":
            rows.append(start)
            continue
        record = pl.read_parquet(folder / "rounds.parquet").filter(pl.col("test_accuracy").is_finite())
        for at in record.iter_rows(named=True):
            values = {column: float(at.get(column, math.nan)) for column in (*COLUMNS, "test_accuracy")}
            rows.append(start | {"rounds": at["rounds"], "unit": at["noise_scale_unit"]} | values)
    return rows


def markdown(rows: pl.DataFrame) -> str:
    """Noise scale after a tenth of the rounds and at the end, over seeds."""
    lines = []
    ends = rows["rounds"].drop_nulls().to_numpy()
    for (part, name), cell in rows.group_by("part", "condition", maintain_order=True):
        early, late = (cell.filter(pl.col("rounds") == at) for at in (ends.min(), ends.max()))
        told = [noise(own["noise_scale"]) for own in (early, late)]
        further = [spread(late[c], ".3g") if late[c].is_finite().any() else "-" for c in COLUMNS[1:]]
        unit = str(cell["unit"][0])
        lines.append([str(part), str(name), unit, *told, *further, spread(100 * late["test_accuracy"], ".1f")])
    headings = ["", "condition", "unit", f"after {ends.min()} rounds", f"after {ends.max()}"]
    return table([*headings, "with privacy noise", "B_within", "M_drift", "test accuracy %"], lines)


def noise(values: pl.Series) -> str:
    """Mean and deviation of the seeds whose gradient could be told from zero; of the others the noise scale is open.

    >>> noise(pl.Series([2.0, 4.0])), noise(pl.Series([2.0, float("inf")])), noise(pl.Series([float("inf")] * 3))
    ('3 +- 1.41', '2, 1 open', 'open')
    """
    known = values.filter(values.is_finite())
    unknown = len(values) - len(known)
    if not len(known):
        return "open"
    return spread(known, ".3g") + (f", {unknown} open" if unknown else "")


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Noise scale over rounds, a panel for each kind of condition; geometric mean over seeds."""
    figure = Figure(figsize=(10.5, 7.5), layout="constrained")
    for ax, (part, conditions) in zip(figure.subplots(2, 2).flat, CONDITIONS.items(), strict=True):
        for color, name in zip(COLORS, conditions, strict=False):
            own = rows.filter((pl.col("part") == part) & (pl.col("condition") == name) & pl.col("rounds").is_not_null())
            values = own.filter(pl.col("noise_scale") > 0)
            points = values.group_by("rounds").agg(pl.col("noise_scale").log().mean().exp()).sort("rounds")
            ax.plot(points["rounds"], points["noise_scale"], "o-", color=color, label=name, markersize=4)
        unit = "clients" if part == "local steps" else "examples"
        ax.set(yscale="log", xlabel="round", ylabel=f"noise scale ({unit})", title=part)
        ax.legend(frameon=False, fontsize=8)
        ax.grid(alpha=0.25, which="both")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
