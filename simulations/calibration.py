"""Calibration in federated learning: losses, temperature, client skew, privacy, shifted data and batch size.

    python simulations/calibration.py             the full grid, about half an hour on one core
    python simulations/calibration.py --quick     digits, a few losses, one seed: about a minute

Weights of composite losses are chosen by what clients hold out, never by the test split, which is what is reported.
Learning rates are set once for each data set and level of privacy, with cross-entropy; for the study of clipping they
are tuned for each clip norm with a seed of its own. Writes docs/results/calibration.parquet, .md and .json, and
docs/figures/calibration.png and calibration_reliability.png.
"""

import json
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl
import torch
from calibration_cells import SETTINGS, Cell, batch_cells, cells, clipping_cells, quick_cells
from calibration_figures import save_figures
from calibration_report import headline, markdown
from omegaconf import OmegaConf
from shifts import SEVERITIES, SHIFTS
from study import command
from study_runs import run_once, status

from fedbatch.config.schema import parse
from fedbatch.metrics import BinSums, calibration_error, nll, width_edges
from fedbatch.metrics.evaluate import logits_of
from fedbatch.metrics.report import Predicted
from fedbatch.metrics.scaling import SharedTemperature
from fedbatch.models.flat import FlatModel
from fedbatch.server.checkpoint import load_latest
from fedbatch.setup import task
from fedbatch.setup.task import Task

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED = 100


def main(arguments: list[str] | None = None) -> None:
    """Run, evaluate, write the tables and the figures."""
    with command("calibration", SUMMARY, "digits, a few losses, one seed", arguments) as asked:
        found = quick_cells() if asked.quick else every_cell(asked.runs)
        seeds = (0,) if asked.quick else (0, 1, 2)
        rows = [row for seed in seeds for cell in found for row in measure(cell, seed, asked.runs)]
        table = pl.DataFrame(rows, infer_schema_length=None)
        asked.save(table)
        (asked.out / "results" / "calibration.json").write_text(json.dumps(headline(table), indent=2) + "\n")
        asked.tell(markdown(table))
        save_figures(table, asked.out / "figures")


def every_cell(runs: Path) -> list[Cell]:
    """All that the full study compares."""
    return [*cells(SETTINGS), *batch_cells(), *(tuned(candidates, runs) for candidates in clipping_cells())]


def tuned(candidates: list[Cell], runs: Path) -> Cell:
    """The cell that is most accurate on held-out data with the tuning seed."""
    return max(candidates, key=lambda cell: held_out_accuracy(run_once(runs, [*cell.overrides, f"seed={TUNING_SEED}"])))


def measure(cell: Cell, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Rows of one run: every temperature on the test split and on its shifts."""
    folder = run_once(runs, [*cell.overrides, f"seed={seed}"])
    fields = ("part", "dataset", "level", "partition", "loss", "weight")
    start = {name: getattr(cell, name) for name in fields} | {"seed": seed, "status": status(folder)}
    if status(folder) != "finished":
        return [start]
    summary = json.loads((folder / "summary.json").read_text())
    run, model = trained(folder)
    held_out = predictions(run, model, held_out_positions(run))
    start |= {"epsilon": summary.get("epsilon"), **held_out_scores(held_out)}
    chosen = {"none": 1.0, "fitted": float(summary["calibration"]["temperature"])}
    if cell.level != "none":
        chosen["exact"] = SharedTemperature().fit(held_out)  # for comparison: it is not covered by the guarantee
    rows = []
    for shift, severity, images in shifted(run):
        logits = logits_of(model, images).double()
        for kind, temperature in chosen.items():
            row = start | {"temperature": kind, "value": temperature, "shift": shift, "severity": severity}
            rows.append(row | scores(logits / temperature, run.test_y, with_bins=not severity))
    print(f"{cell.part}, {cell.dataset}, {cell.level}, {cell.partition}, {cell.loss} {cell.weight:g}", file=sys.stderr)
    return rows


def trained(folder: Path) -> tuple[Task, FlatModel]:
    """A finished run's task and its last model."""
    values: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    config = parse(values)
    run, state = task.load(config.to_json()), load_latest(folder / "checkpoints")
    model = run.new_model()
    model.load(state.params, state.buffers)
    return run, model


def held_out_positions(run: Task) -> np.ndarray:
    """Positions of all that clients hold out."""
    return np.concatenate([run.held_out(client) for client in range(run.config.population)])


def held_out_accuracy(folder: Path) -> float:
    """Accuracy on what clients hold out, 0 for a run that failed."""
    if status(folder) != "finished":
        return 0.0
    run, model = trained(folder)
    return held_out_scores(predictions(run, model, held_out_positions(run)))["held_out_accuracy"]


def predictions(run: Task, model: FlatModel, positions: np.ndarray) -> Predicted:
    """Predictions of training examples."""
    return Predicted(logits_of(model, run.train_x[positions]).double(), run.train_y[positions])


def held_out_scores(pool: Predicted) -> dict[str, float]:
    """What weights are chosen by."""
    values = scores(pool.logits, pool.labels, with_bins=False)
    return {f"held_out_{name}": values[name] for name in ("accuracy", "ece_mass")}


def shifted(run: Task) -> list[tuple[str, int, torch.Tensor]]:
    """Test images as they are, and shifted."""
    images = run.test_x.numpy()
    return _shifted(images.tobytes(), images.shape)


@lru_cache(maxsize=2)
def _shifted(content: bytes, shape: tuple[int, ...]) -> list[tuple[str, int, torch.Tensor]]:
    """Of the same images for all runs on a data set."""
    images = np.frombuffer(bytearray(content), dtype=np.float32).reshape(shape)
    found = [(name, s, torch.from_numpy(shift(images, s))) for name, shift in SHIFTS.items() for s in SEVERITIES]
    return [("clean", 0, torch.from_numpy(images)), *found]


def scores(logits: torch.Tensor, labels: torch.Tensor, with_bins: bool) -> dict[str, Any]:
    """Accuracy, ECE (equal mass, l2, debiased; equal width, l1), NLL, and bins for a reliability diagram."""
    probs = logits.softmax(dim=1)
    row: dict[str, Any] = {
        "accuracy": float((probs.argmax(dim=1) == labels).double().mean()),
        "ece_mass": calibration_error(probs, labels, norm="l2", binning="mass", debias=True),
        "ece": calibration_error(probs, labels),
        "nll": nll(logits.softmax(dim=1).clamp(min=1e-300), labels),
    }
    return row | ({"bins": BinSums.of(probs, labels, width_edges(10)).vector().tolist()} if with_bins else {})


if __name__ == "__main__":
    main()
