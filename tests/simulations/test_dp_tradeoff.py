import math
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
MODULE = "simulations.dp_tradeoff"


@pytest.fixture
def study():
    from simulations import dp_tradeoff

    return dp_tradeoff


def test_every_part_of_the_study_is_there_and_compares_equals(study):
    cells = study.cells(study.FULL)
    parts = {part: [c for c in cells if c.part == part] for part in {c.part for c in cells}}
    assert set(parts) == {"batch", "clip norm", "schedule", "mechanism", "weight decay"}
    assert len(parts["batch"]) == len(study.FULL.epsilons) * len(study.FULL.client_batches)
    assert len({c.epsilon for part in parts for c in parts[part] if part != "batch"}) == 1
    # 40 rounds of half the batch and 40 of one and a half are 80 of the whole.
    sizes = [study.FULL.middle // 2, study.FULL.middle * 3 // 2]
    assert sum(sizes) == 2 * study.FULL.middle


def test_the_most_accurate_learning_rate_is_taken_and_failures_are_shown(study, monkeypatch, tmp_path):
    accuracies = {0.3: 0.4, 1.0: 0.5}
    asked = []

    def run_once(runs, overrides):
        given = dict(o.split("=", 1) for o in overrides if "=" in o)
        asked.append(given)
        return tmp_path / given["server_optimizer.lr"] / given["seed"]

    monkeypatch.setattr(study, "run_once", run_once)
    monkeypatch.setattr(study, "status", lambda folder: "failed" if folder.parent.name == "3" else "finished")
    monkeypatch.setattr(study, "final", lambda folder, column: accuracies.get(float(folder.parent.name), math.nan))
    monkeypatch.setattr(study, "details", lambda folder: {})
    cell = study.Cell("batch", "B", 2.0, 100.0, ("controller=fixed",))
    rows = study.measure(study.QUICK, cell, tmp_path)
    assert {row["rate"] for row in rows} == {1.0} and rows[0]["accuracy"] == 0.5
    assert {a["seed"] for a in asked[:2]} == {"100"}, "tuned with a seed that is not reported"


def test_the_report_shows_means_spread_knee_and_failures(study, tmp_path):
    from simulations.dp_tradeoff_report import knee, markdown, save_figure

    rows = []
    for batch in (100.0, 400.0):
        for epsilon in (2.0, math.inf):
            for seed, accuracy in enumerate((0.5, 0.6)):
                row = {"part": "batch", "name": f"B={batch:g}", "epsilon": epsilon, "batch": batch, "seed": seed}
                row |= {"rate": 1.0, "status": "finished", "accuracy": accuracy, "weight_norm": 4.0, "examples": 10}
                if math.isfinite(epsilon):
                    row |= {"noise_multiplier": 1.5, "snr": [0.5] * 20}
                rows.append(row)
    rows.append(rows[-1] | {"status": "failed", "accuracy": math.nan, "weight_norm": None})
    noise = [{"epsilon": 2.0, "batch": b, "sigma": 1.0, "ratio": 1 / b} for b in (10.0, 100.0)]
    table = pl.DataFrame(rows, infer_schema_length=None)
    text = markdown(table, noise, 1000, 40)
    assert "| B=100 | 2 | 100 | 55.0 +- 7.1 | 1.50 | 4.0 | 1 | 2 |" in text
    assert "| B=400 | none | 400 | 55.0 +- 7.1 | - | 4.0 | 1 | 3 (1 failed) |" in text
    assert knee(1000, 40, 2.5) == 250 and "| 2 | 224 | 10: 1.00e-01, 100: 1.00e-02 |" in text
    save_figure(table, noise, 1000, 40, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_quick_study_runs(tmp_path):
    command = [sys.executable, "-m", MODULE, "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pl.read_parquet(tmp_path / "results" / "dp_tradeoff.parquet")
    assert set(table["status"]) == {"finished"}
    by_batch = table.filter((pl.col("part") == "batch") & (pl.col("epsilon") == 2)).sort("batch")["accuracy"]
    assert by_batch[0] > 0.5
