import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
MODULE = "simulations.client_counts"


@pytest.fixture
def study():
    from simulations import client_counts

    return client_counts


def rounds(accuracies):
    n = len(accuracies)
    costs = {"rounds": range(1, n + 1), "examples": range(100, 100 * n + 1, 100), "bytes": [8.0] * n}
    seconds = {"simulated_seconds": [1.0] * n, "measured_seconds": [1.0] * n}
    noise = {"noise_scale": [6.0] * n, "noise_scale_unit": ["examples"] * n, "global_batch": [20] * n}
    return pl.DataFrame({**costs, **seconds, **noise, "cohort_size": [10] * n, "test_accuracy": accuracies})


def test_cost_to_a_target_is_interpolated(study):
    costs = study.costs_to(rounds([0.2, 0.4, 0.6]), rounds([0.2, 0.4, 0.6]), 0.45)
    assert costs["rounds"] == pytest.approx(2.25) and costs["examples"] == pytest.approx(225)
    assert costs["noise"] == pytest.approx(3.0)  # 6 examples, two a client


def test_target_at_the_first_evaluation_and_never(study):
    table = rounds([0.5, 0.6])
    assert study.costs_to(table, table, 0.4)["rounds"] == 1
    assert set(study.costs_to(table, table, 0.9).values()) == {None}


def test_a_run_that_cannot_be_is_recorded_and_does_not_stop_the_study(study, tmp_path):
    folder = study.run_once(tmp_path, ["dataset=digits", "population=10", "cohort_size=11", "controller=fixed"])
    assert study.status(folder) == "failed"
    assert "cohort_size" in (folder / "error.txt").read_text()
    assert study.summarize(study.record(folder), {"low": 0.5}, "failed") == {"failed": True}


@pytest.mark.slow
def test_quick_form_runs_and_resumes(tmp_path):
    command = [
        sys.executable,
        "-m",
        MODULE,
        "--quick",
        "--out",
        str(tmp_path / "out"),
        "--runs",
        str(tmp_path / "runs"),
    ]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    written = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("runs/*/summary.json"))]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    assert written == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("runs/*/summary.json"))]
    table = pl.read_parquet(tmp_path / "out/results/client_counts.parquet")
    assert len(table) == 4 * 2 * 3 and table["method"].n_unique() == 4
    assert (table["status"] == "finished").all()
    assert table["low_rounds"].null_count() < len(table) / 2
    assert "M_crit" in (tmp_path / "out/results/client_counts.md").read_text()
    assert (tmp_path / "out/figures/client_counts.png").stat().st_size > 10_000
