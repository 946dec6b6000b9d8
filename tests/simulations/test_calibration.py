import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study():
    from simulations import calibration_cells

    return calibration_cells


def test_every_loss_is_where_its_guarantee_allows_it(study):
    cells = study.cells(study.SETTINGS)
    assert {(c.dataset, c.partition, c.level) for c in cells} == {
        (d, p, v)
        for d in ("digits", "fashion_mini")
        for p in ("iid", "dirichlet")
        for v in ("none", "client", "example")
    }
    assert not {c.loss for c in cells if c.level == "example"} & set(study.COUPLED)
    weights = {(c.loss, c.weight) for c in cells if c.level == "none"}
    assert {w for name, w in weights if name == "SB-ECE"} == {0.5, 1.0, 2.0, 4.0}
    assert len({len(group) for group in study.clipping_cells()}) == 1


def test_batches_are_compared_at_equal_examples(study):
    for cell in study.batch_cells():
        given = dict(o.split("=", 1) for o in cell.overrides if "=" in o)
        clients, size, rounds = (int(given[name]) for name in ("cohort_size", "client_batch_size", "rounds"))
        start = int(given.get("controller.starts.large", rounds))
        large = [int(given.get(f"controller.phases.large.{name}", 0)) for name in ("cohort_size", "client_batch_size")]
        assert start * clients * size + (rounds - start) * large[0] * large[1] == 200 * 1280, cell.name


def rows(loss, weight, ece, held_out, accuracy=0.9, held_out_accuracy=0.9):
    for seed in (0, 1):
        for kind, factor in (("none", 1.0), ("fitted", 0.5)):
            for shift, severity in (("clean", 0), ("noise", 1), ("noise", 2), ("blur", 1), ("rotation", 1)):
                yield {
                    **{"part": "loss", "dataset": "digits", "level": "none", "partition": "iid", "status": "finished"},
                    **{"loss": loss, "weight": weight, "seed": seed, "temperature": kind, "value": 1.5},
                    **{"shift": shift, "severity": severity, "accuracy": accuracy, "nll": 0.5, "epsilon": None},
                    **{"ece_mass": factor * (ece + 0.01 * severity) + 0.01 * seed, "held_out_ece_mass": held_out},
                    **{"held_out_accuracy": held_out_accuracy, "bins": [20.0] * 10 + [9.0] * 10 + [10.0] * 10},
                }


TABLE = pl.DataFrame(
    [
        *rows("CE", 0.0, 0.1, 0.1),
        *rows("SB-ECE", 1.0, 0.04, 0.02, accuracy=0.89),
        *rows("SB-ECE", 2.0, 0.01, 0.03),  # better on the test split, which does not choose
        *rows("MMCE", 4.0, 0.01, 0.01, held_out_accuracy=0.8),  # too inaccurate
    ]
)


def test_held_out_data_choose_the_weight_and_the_test_split_reports_it(study):
    from simulations.calibration_report import headline

    found = headline(TABLE)["digits, iid"]
    assert found["chosen"] == "CE + 1 SB-ECE" and found["seeds"] == 2
    assert found["ece_reduction_percent"] == round(100 * (1 - 0.045 / 0.105), 1)
    assert found["relative_accuracy_change_percent"] == round(100 * (0.89 / 0.9 - 1), 2)


@pytest.mark.slow
def test_the_report_shows_means_spread_shifts_and_failures(study, tmp_path):
    from simulations.calibration_figures import save_figures
    from simulations.calibration_report import markdown

    failed = pl.DataFrame([{"part": "loss", "dataset": "digits", "status": "failed", "loss": "CE"}])
    text = markdown(pl.concat([TABLE, failed], how="diagonal"))
    assert text.startswith("1 runs failed")
    assert "| iid | CE | 90.0 ± 0.0 | 0.105 ± 0.007 | 0.055 ± 0.007 | 1.50 ± 0.00 |" in text
    # mean of severities 1 and 2
    assert "| digits | CE | 1 | 0.105 ± 0.007 | 0.120 ± 0.007 | 0.115 ± 0.007 | 0.115 ± 0.007 |" in text
    private = TABLE.with_columns(level=pl.lit("example"))
    save_figures(pl.concat([TABLE, private]), tmp_path)
    for name in ("calibration.png", "calibration_reliability.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_shifts_keep_shape_and_grow(study):
    from simulations.shifts import SEVERITIES, SHIFTS

    images = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    for shift in SHIFTS.values():
        moved = [shift(images, severity) for severity in SEVERITIES]
        assert all(m.shape == images.shape and m.dtype == np.float32 for m in moved)
        assert np.array_equal(moved[0], shift(images, 1)) and not np.array_equal(moved[0], images)
    distance = [np.abs(SHIFTS["noise"](images, s) - images).mean() for s in SEVERITIES]
    assert distance == sorted(distance)


@pytest.mark.slow
def test_the_quick_study_runs(tmp_path):
    command = [sys.executable, "-m", "simulations.calibration", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pl.read_parquet(tmp_path / "results" / "calibration.parquet")
    assert set(table["status"]) == {"finished"} and set(table["level"]) == {"none", "client", "example"}
    assert "chosen" in json.loads((tmp_path / "results" / "calibration.json").read_text())["digits, iid"]
