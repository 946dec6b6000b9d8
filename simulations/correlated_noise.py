"""Correlated noise (DP-FTRL) against independent noise at one epsilon: what is predicted, and what training says.

    python -m simulations.correlated_noise             about ten minutes on one core
    python -m simulations.correlated_noise --quick     digits, one seed, under a minute

The prediction is the root mean square of the noise on sums of updates, over that of independent noise, at the noise
that epsilon needs. Runs compare privacy.bands=1 with privacy.bands=auto, at example level (100 clients, all in every
round) and at client level (500 clients). The learning rate is tuned for every cell with a seed of its own; that tuning
is not paid for in epsilon. Writes docs/results/correlated_noise.parquet and .md, and docs/figures/correlated_noise.png.
"""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedbatch.privacy import noise_multiplier
from fedbatch.privacy.banded import coefficients, error
from simulations.study import command
from simulations.study_runs import final, run_once, status
from simulations.tables import spread, table

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100
DELTA = 1e-5
COLORS = ("#0072B2", "#D55E00", "#009E73")


@dataclass(frozen=True)
class Study:
    """One form of the study.

    Attributes:
        common: overrides of all runs.
        levels: by name, the overrides of a unit of privacy.
        epsilons: targets.
        rates: grid of server learning rates.
        seeds: of the reported runs.
        predicted_rounds: T of the prediction.
        sample_rates: q of the prediction, a small and a large one.
    """

    common: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    epsilons: tuple[float, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    predicted_rounds: int
    sample_rates: tuple[float, float]


QUIET = ("controller=fixed", "evaluate_every_rounds=0", "checkpoint_every_rounds=0", "executor=fused", "report=none")
EXAMPLE = ("privacy=example_central", "population=100", "cohort_size=100")
FULL = Study(
    common=(*QUIET, "dataset=fashion_mini", "model.width=32", "rounds=160"),
    levels={
        "example, q = 0.01": (*EXAMPLE, "client_batch_size=1"),
        "client, q = 0.05": ("privacy=client_central", "population=500", "cohort_size=25", "client_batch_size=null"),
    },
    epsilons=(1.0, 4.0, 16.0),
    rates=(0.3, 1.0, 3.0),
    seeds=(0, 1, 2),
    predicted_rounds=1024,
    sample_rates=(0.002, 0.05),
)
QUICK = Study(
    common=(*QUIET, "dataset=digits", "model.width=8", "rounds=16"),
    levels={"client, q = 0.2": ("privacy=client_central", "population=20", "cohort_size=4", "client_batch_size=null")},
    epsilons=(8.0,),
    rates=(1.0,),
    seeds=(0,),
    predicted_rounds=64,
    sample_rates=(0.02, 0.2),
)


def main(arguments: list[str] | None = None) -> None:
    """Predict, tune, run, write the tables and the figure."""
    with command("correlated_noise", SUMMARY, "digits, one cell, one seed", arguments) as asked:
        study = QUICK if asked.quick else FULL
        predicted = [row for q in study.sample_rates for row in prediction(study, q)]
        rows = [row for cell in cells(study) for row in measure(study, *cell, asked.runs)]
        found = pl.DataFrame(rows, infer_schema_length=None)
        asked.save(found)
        asked.tell(markdown(found, predicted))
        save_figure(predicted, study, asked.figure())


def prediction(study: Study, q: float) -> list[dict[str, float]]:
    """For every epsilon and number of bands, the noise on sums of updates over that of independent noise."""
    rows = []
    for epsilon in study.epsilons:
        errors = {}
        for bands in (2**k for k in range(9) if 2**k * q <= 1):
            phases = [(bands * q, 1.0, math.ceil(study.predicted_rounds / bands))]
            sigma = noise_multiplier(epsilon, DELTA, phases, "rdp")
            errors[bands] = sigma * error(coefficients(bands, study.predicted_rounds), study.predicted_rounds)
            rows.append({"q": q, "epsilon": epsilon, "bands": bands, "ratio": errors[bands] / errors[1]})
    return rows


def cells(study: Study) -> list[tuple[str, float, str]]:
    """Level, epsilon and bands of every cell."""
    return [(level, e, bands) for level in study.levels for e in study.epsilons for bands in ("1", "auto")]


def measure(study: Study, level: str, epsilon: float, bands: str, runs: Path) -> list[dict[str, Any]]:
    """Rows of a cell's seeds, at the learning rate that was best with the tuning seed."""

    def run(rate: float, seed: int) -> Path:
        private = (f"privacy.target_epsilon={epsilon:g}", f"privacy.bands={bands}")
        numbers = (f"seed={seed}", f"server_optimizer.lr={rate:g}")
        return run_once(runs, [*study.common, *study.levels[level], *private, *numbers])

    accuracies = {rate: final(run(rate, TUNING_SEED), "test_accuracy") for rate in study.rates}
    best = max(accuracies, key=lambda rate: accuracies[rate] if math.isfinite(accuracies[rate]) else -math.inf)
    rows = []
    for seed in study.seeds:
        folder = run(best, seed)
        noise = "independent" if bands == "1" else "correlated"
        row = {"level": level, "epsilon": epsilon, "noise": noise, "seed": seed, "rate": best}
        rows.append(row | {"accuracy": final(folder, "test_accuracy")} | details(folder))
        print(f"{level}, epsilon {epsilon:g}, {noise}, {seed}: {rows[-1]['accuracy']:.3f}", file=sys.stderr)
    return rows


def details(folder: Path) -> dict[str, Any]:
    """Noise multiplier and number of bands."""
    if status(folder) != "finished":
        return {}
    told = json.loads((folder / "summary.json").read_text())["privacy"]
    groups = told["noise"].split()
    return {
        "noise_multiplier": told["schedule"][0]["noise_multiplier"],
        "bands": int(groups[2]) if groups[0] == "correlated" else 1,
    }


def markdown(found: pl.DataFrame, predicted: Sequence[dict[str, float]]) -> str:
    """Accuracy of every cell, and the prediction."""
    rows = []
    for (level, epsilon, noise), cell in found.group_by("level", "epsilon", "noise", maintain_order=True):
        accuracy = spread(100 * cell["accuracy"], ".1f")
        numbers = f"{cell['bands'][0]}", f"{cell['noise_multiplier'][0]:.2f}", f"{cell['rate'][0]:g}"
        rows.append([str(level), f"{epsilon:g}", str(noise), *numbers, accuracy])
    headings = ["level", "epsilon", "noise", "bands", "noise multiplier", "lr", "test accuracy %"]
    text = table(headings, rows)
    lines = []
    for q, epsilon in dict.fromkeys((row["q"], row["epsilon"]) for row in predicted):
        own = [row for row in predicted if (row["q"], row["epsilon"]) == (q, epsilon)]
        values = ", ".join(f"{row['bands']:g}: {row['ratio']:.2f}" for row in own)
        lines.append([f"{q:g}", f"{epsilon:g}", values])
    return text + "\n" + table(["q", "epsilon", "bands: noise on sums over that of independent noise"], lines)


def save_figure(predicted: Sequence[dict[str, float]], study: Study, path: Path) -> None:
    """The prediction against bands, for the small and the large sample rate."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for ax, q in zip(figure.subplots(1, 2, sharey=True), study.sample_rates, strict=True):
        _predicted(ax, [row for row in predicted if row["q"] == q], study.epsilons)
        ax.set_title(f"q = {q:g}, {study.predicted_rounds * q:.0f} epochs", fontsize=10)
    figure.savefig(path, dpi=110)


def _predicted(ax: Axes, rows: Sequence[dict[str, float]], epsilons: Sequence[float]) -> None:
    for color, epsilon in zip(COLORS, epsilons, strict=False):
        own = [row for row in rows if row["epsilon"] == epsilon]
        bands, ratios = [row["bands"] for row in own], [row["ratio"] for row in own]
        ax.plot(bands, ratios, color=color, marker="o", label=f"epsilon {epsilon:g}")
    ax.axhline(1.0, color="black", linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="bands", ylabel="noise on sums,\nover that of independent noise")
    bands = sorted({int(row["bands"]) for row in rows})
    ax.set_xticks(bands, [str(b) for b in bands])
    ax.set_yticks([0.25, 0.5, 1.0, 2.0], ["0.25", "0.5", "1", "2"])
    ax.minorticks_off()
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8)


if __name__ == "__main__":
    main()
