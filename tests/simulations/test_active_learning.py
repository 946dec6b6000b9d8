import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
MODULE = "simulations.active_learning"


@pytest.fixture
def study():
    from simulations import active_learning

    return active_learning


def rows(selector, accuracies, seed=0):
    setting = {"data": "d", "pool": "plain", "where": "one owner", "labels_per_query": 50, "selector": selector}
    for stage, accuracy in enumerate(accuracies):
        numbers = {
            "labels_used": 20 + 50 * stage,
            "test_accuracy": accuracy,
            "class_balance": 1.0,
            "query_seconds": 2.0,
        }
        yield setting | {"seed": seed, "status": "finished", "stage": stage} | numbers


def test_all_selectors_have_the_same_budget_and_work(study):
    for data in (study.DIGITS, study.FASHION):
        totals = {labels * queries for labels, queries in data.queries}
        assert len(totals) == 1, "batches of labels are compared at the same end"
        assert set(data.pools) == set(data.seeds) >= {"redundant", "plain"}
        for where in ("one owner", "20 clients"):
            assert any(option.startswith("population=") for option in study.owners(where, data.batch))
    assert len(study.DIGITS.seeds["redundant"]) >= 5


def test_labels_needed_are_read_off_the_mean_curve(study):
    from simulations.active_learning_report import labels_for, markdown

    table = pl.DataFrame(
        [*rows("a", [0.5, 0.7, 0.9]), *rows("a", [0.5, 0.9, 0.9], 1), *rows("margin", [0.5, 0.6, 0.7])]
    )
    own = table.filter(pl.col("selector") == "a")
    assert labels_for(own, 80.0) == pytest.approx(70) and labels_for(own, 65.0) == pytest.approx(45)
    assert labels_for(own, 40.0) == 20 and labels_for(own, 95.0) != labels_for(own, 95.0)
    overlap = {"two_level": 1.0, "global_only": 0.5, "local_only": 0.4, "plain margin": 0.3}
    text = markdown(table, [{"spread": "separated", "partition": "iid", "seed": 0, **overlap}])
    assert "| a | 50.0 +- 0.0 | 80.0 +- 14.1 | 90.0 +- 0.0 | 1.000 | 2.00 | 2 |" in text
    assert "Highest at the end: a; 44 % of the labels for the end of margin." in text
    assert "| separated | iid | 1.000 (1.000) |" in text


def test_separated_blobs_are_chosen_as_by_one_owner(study):
    from simulations.active_learning_overlap import one

    found = one(0.1, 1.0, iid=True, seed=0)
    assert found["two_level"] >= 0.95 > found["global_only"] > 0


@pytest.mark.slow
def test_the_quick_study_runs(tmp_path):
    command = [sys.executable, "-m", MODULE, "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pl.read_parquet(tmp_path / "results" / "active_learning.parquet")
    assert set(table["status"]) == {"finished"} and table["labels_used"].max() == 120
