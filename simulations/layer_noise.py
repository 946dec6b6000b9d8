"""Do normalisation layers predict the noise scale of the whole model? After Gray et al. 2024 (arXiv 2411.00999).

    python -m simulations.layer_noise             a GPT and a ResNet-8, 3 seeds; seven minutes of a core
    python -m simulations.layer_noise --quick     a few rounds of the GPT

Noise scales of layers come from groups of clients (`noise_scale.layers`), that of the model from all clients. Layers of
a kind are taken together: their noise over their signal. Over the second half of the runs, log(whole) is read against
log(kind): the median factor between them, the spread about that factor, and r^2. Writes
docs/results/layer_noise.parquet and .md, and a figure.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from fedbatch import load_model
from fedbatch.results.store import read_rows
from simulations.critical_tasks import PLAYS, RESNET
from simulations.study import command
from simulations.study_runs import run_once
from simulations.tables import table

SUMMARY = __doc__.splitlines()[0]
SEEDS, ROUNDS = (0, 1, 2), 600
FIXED = ("controller=fixed", "population=64", "cohort_size=32", "client_batch_size=8", "report=none")
GROUPS = ("noise_scale.groups=8", "noise_scale.every=2", "noise_scale.layers=true", "evaluate_every_rounds=0")
MODELS = {
    "GPT": (*PLAYS, "server_optimizer=adamw", "server_optimizer.lr=0.003"),
    "ResNet-8": (*RESNET, "server_optimizer.lr=0.02", "server_optimizer.momentum=0.9"),
}
KINDS = ("norms", "embeddings", "other layers")


def main(arguments: list[str] | None = None) -> None:
    """Run, compare, write the table and the figure."""
    with command("layer_noise", SUMMARY, "a few rounds of the GPT", arguments, True) as study:
        models, seeds, rounds = (MODELS, SEEDS, ROUNDS) if not study.quick else ({"GPT": MODELS["GPT"]}, (0,), 24)
        cells = [partial(measure, study.runs, model, seed, rounds) for model in models for seed in seeds]
        rows = pl.DataFrame(study.rows(cells))
        study.save(rows)
        study.tell(markdown(rows))
        draw(rows, study.figure())


def measure(runs: Path, model: str, seed: int, rounds: int) -> list[dict[str, Any]]:
    """Noise scales of the model and of each kind of layer, in the measured rounds."""
    folder = run_once(runs, [*FIXED, *GROUPS, *MODELS[model], f"seed={seed}", "partitioner.seed=0", f"rounds={rounds}"])
    modules = dict(load_model(folder).named_modules())
    names = json.loads((folder / "summary.json").read_text())["layers"]
    kinds = np.array([kind(type(modules[name]).__name__) for name in names])
    return [
        {"model": model, "seed": seed, "round": row["round"], "whole": row["noise_scale"], **scales(row, kinds)}
        for row in read_rows(folder / "rounds.jsonl")
        if "layer_traces" in row and (row["round"] + 1) % 2 == 0
    ]


def kind(module: str) -> str:
    """One of `KINDS`, by the name of a module's class."""
    return "norms" if "Norm" in module else "embeddings" if module == "Embedding" else "other layers"


def scales(row: dict[str, Any], kinds: np.ndarray) -> dict[str, float | None]:
    """Noise over signal of the layers of each kind; None where there is no signal or no such layer."""
    traces, grad_sqs = np.array(row["layer_traces"]), np.array(row["layer_grad_sqs"])
    sums = {name: (traces[kinds == name].sum(), grad_sqs[kinds == name].sum()) for name in KINDS}
    return {name: float(trace / signal) if signal > 0 else None for name, (trace, signal) in sums.items()}


def compared(rows: pl.DataFrame) -> Iterator[tuple[str, str, int, float, float, float]]:
    """Model, kind, points, median factor whole / kind, rms factor about it, and r^2 of the logarithms."""
    late = rows.filter(pl.col("round") >= pl.col("round").max() / 2)
    for model in rows["model"].unique(maintain_order=True):
        for name in KINDS:
            own = late.filter((pl.col("model") == model) & pl.col(name).is_not_null() & pl.col("whole").is_finite())
            if len(own) < 3:
                continue
            whole, part = np.log(own["whole"].to_numpy()), np.log(own[name].to_numpy())
            factor = np.median(whole - part)
            spread = np.sqrt(np.mean((whole - part - factor) ** 2))
            yield model, name, len(own), np.exp(factor), np.exp(spread), np.corrcoef(whole, part)[0, 1] ** 2


def markdown(rows: pl.DataFrame) -> str:
    """The table."""
    lines = [
        [model, name, str(count), f"{factor:.2f}", f"{spread:.2f}", f"{r2:.2f}"]
        for model, name, count, factor, spread, r2 in compared(rows)
    ]
    return table(["model", "layers", "points", "whole / layers, median", "rms factor about it", "r^2 of logs"], lines)


def draw(rows: pl.DataFrame, path: Path) -> None:
    """Noise scales over rounds, seed by seed: the whole in black, kinds of layers in colours."""
    models = rows["model"].unique(maintain_order=True).to_list()
    figure, axes = plt.subplots(1, len(models), figsize=(5 * len(models), 3.6), squeeze=False, layout="constrained")
    for ax, model in zip(axes[0], models, strict=True):
        for (seed,), own in rows.filter(pl.col("model") == model).group_by("seed", maintain_order=True):
            for name, colour in zip(("whole", *KINDS), ("black", "tab:orange", "tab:green", "tab:blue"), strict=True):
                if own[name].null_count() == len(own):
                    continue
                values = own[name].cast(pl.Float64).fill_null(np.nan)
                ax.plot(own["round"], values, color=colour, lw=1.2, label=name if seed == 0 else None)
        ax.set(yscale="log", xlabel="round", ylabel="noise scale (examples)", title=model)
        ax.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
