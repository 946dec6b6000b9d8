"""Do soft calibration objectives cut the calibration error of networks that fit their training set?

    make data && python -m simulations.soft_calibration    twenty-five minutes of CPU time; resumable
    python -m simulations.soft_calibration --quick         a perceptron on digits, one seed, under a minute

After Karandikar et al. 2021. A CNN and a ResNet-8 train on 10,000 images until they make hardly an error on them. Every
grid (weight and temperature of the soft objective, gamma of focal loss) is chosen on 10,000 held-out images with a seed
of its own: least ECE within 1 % of the accuracy of cross-entropy. Other seeds are reported, on 10,000 test images.
Writes docs/results/soft_calibration.parquet and .md, and docs/figures/soft_calibration.png.
"""

import os
import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import numpy as np
import polars as pl
import torch

from fedbatch.data.holdout import spread_evenly
from fedbatch.metrics.evaluate import logits_of
from fedbatch.metrics.scaling import SharedTemperature
from fedbatch.setup.task import Task
from simulations.calibration import held_out_positions, held_out_scores, predictions, scores, trained
from simulations.shifts import SHIFTS
from simulations.soft_calibration_cells import FULL, GAMMAS, QUICK, Loss, Setting, composites, plain
from simulations.soft_calibration_report import markdown, save_figure
from simulations.study import Study, command
from simulations.study_runs import run_once, status

SUMMARY = __doc__.splitlines()[0]
TUNING_SEED, SEVERITY, FLOOR = 100, 3, 0.99


def main(arguments: list[str] | None = None) -> None:
    """Choose, run, write the tables and the figure."""
    with command("soft_calibration", SUMMARY, "digits, one seed", arguments, True, True) as study:
        settings = QUICK if study.quick else FULL
        first, *_ = settings
        tried = study.rows([partial(measure, study, first, loss, TUNING_SEED) for loss in plain()])
        soft = composites(best_gamma(tried))
        tried += study.rows([partial(measure, study, first, loss, TUNING_SEED) for loss in soft])
        chosen = choose([*plain(), *soft], tried)
        cells = [
            partial(measure, study, setting, loss, seed)
            for setting in settings
            for loss in (chosen if setting.all_losses else fewest(chosen, tried))
            for seed in setting.seeds
        ]
        table = pl.DataFrame(tried + study.rows(cells), infer_schema_length=None)
        study.save(table)
        study.tell(markdown(table))
        save_figure(table, study.figure())


def measure(study: Study, setting: Setting, loss: Loss, seed: int) -> list[dict[str, Any]]:
    """Rows of a run: with and without a temperature, on test images as they are and shifted."""
    folder = run_once(study.runs, [*setting.overrides, *loss.overrides, f"device={study.device}", f"seed={seed}"])
    start = {"setting": setting.name, "family": loss.family, "loss": loss.name, "seed": seed}
    start |= {"tuning": seed == TUNING_SEED, "status": status(folder)}
    if status(folder) != "finished":
        return [start]
    run, model = trained(folder)
    fitted = predictions(run, model, spread_evenly(run.partition, len(run.train_y)))
    held_out = predictions(run, model, held_out_positions(run))
    start |= {f"train_{k}": v for k, v in scores(fitted.logits, fitted.labels, False).items()}
    start |= held_out_scores(held_out)
    rows = []
    for shift, images in tested(run):
        logits = logits_of(model, images).double()
        for kind, temperature in (("none", 1.0), ("fitted", float(SharedTemperature().fit(held_out)))):
            row = start | {"shift": shift, "temperature": kind, "value": temperature}
            rows.append(row | scores(logits / temperature, run.test_y, with_bins=False))
    print(f"{setting.name}, {loss.name}, seed {seed}", file=sys.stderr, flush=True)
    return rows


def tested(run: Task) -> list[tuple[str, torch.Tensor]]:
    """Test images as they are, and under each shift of the middle severity."""
    images = run.test_x.cpu().numpy()
    return [(name, moved.to(run.test_x.device)) for name, moved in _shifted(images.tobytes(), images.shape)]


@lru_cache(maxsize=1)
def _shifted(content: bytes, shape: tuple[int, ...]) -> list[tuple[str, torch.Tensor]]:
    """Of the same images for all runs."""
    images = np.frombuffer(bytearray(content), dtype=np.float32).reshape(shape)
    found = [(name, torch.from_numpy(shift(images, SEVERITY))) for name, shift in SHIFTS.items()]
    return [("clean", torch.from_numpy(images)), *found]


def choose(losses: Sequence[Loss], tried: Sequence[dict[str, Any]]) -> list[Loss]:
    """Of each family the loss of least held-out ECE within 1 % of the held-out accuracy of cross-entropy, if any is."""
    told = _held_out(tried)
    floor = FLOOR * told["CE"][0]
    allowed = [loss for loss in losses if loss.name in told and told[loss.name][0] >= floor]
    families = dict.fromkeys(loss.family for loss in losses)
    own = [[loss for loss in allowed if loss.family == family] for family in families]
    return [min(found, key=lambda loss: told[loss.name][1]) for found in own if found]


def fewest(chosen: Sequence[Loss], tried: Sequence[dict[str, Any]]) -> list[Loss]:
    """Of the chosen losses cross-entropy, focal loss, and the composite that held-out data like best."""
    told = _held_out(tried)
    soft = min((loss for loss in chosen if loss.is_composite), key=lambda loss: told[loss.name][1], default=None)
    return [loss for loss in chosen if loss.family in ("CE", "focal") or loss is soft]


def best_gamma(tried: Sequence[dict[str, Any]]) -> float:
    """Of the focal losses that were tried, as `choose` chooses; the smallest where none is accurate enough."""
    own = [loss for loss in choose(plain(), tried) if loss.family == "focal"]
    return GAMMAS[[loss.name for loss in plain() if loss.family == "focal"].index(own[0].name)] if own else GAMMAS[0]


def _held_out(tried: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Held-out accuracy and ECE by loss; of runs that finished."""
    done = [row for row in tried if row["status"] == "finished"]
    return {row["loss"]: (row["held_out_accuracy"], row["held_out_ece_mass"]) for row in done}


if __name__ == "__main__":
    main()
