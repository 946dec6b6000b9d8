"""The table of columns knows every column that runs write, and readers read it."""

import json
from pathlib import Path

import pytest

from fedbatch.config.checks import CHOICES
from fedbatch.core.columns import COLUMNS, TARGETS
from fedbatch.core.find_columns import column, named, seen_as

GOLDEN = Path(__file__).parents[1] / "golden/bits.json"


def test_every_column_of_the_golden_runs_is_known():
    written = {key.split(".", 1)[1] for run in json.loads(GOLDEN.read_text()).values() for key in run["rows"]}
    assert len(written) > 60 and [name for name in sorted(written) if column(name) is None] == []


def test_every_column_of_a_record_is_known(make_config, monkeypatch):
    from tests.conftest import run

    for overrides in ([], ["active=margin", "active.seed_labels=40", "active.labels_per_query=20", "active.queries=1"]):
        rows, _, _ = run(make_config("controller=fixed", *overrides, folder=f"run{len(overrides)}"))
        assert [name for row in rows for name in row if column(name) is None] == []


def test_names_are_said_once_and_what_is_shown_in_their_place_is_there():
    names = [each.name for each in COLUMNS]
    assert len(names) == len(set(names))
    assert all(each.private in names for each in COLUMNS if each.private)
    assert all(each.better for each in COLUMNS if "target" in each.shown)
    assert {place for each in COLUMNS for place in each.shown} == {"summary", "curve", "compare", "cost", "target"}


def test_targets_are_the_scores():
    averaged = {"average_test_accuracy", "average_test_loss"}
    expected = {"test_accuracy", "test_loss", "train_loss", "training_set_loss", *averaged}
    assert set(TARGETS) == set(CHOICES["target_metric"]) == expected
    assert {name: column(name).better for name in TARGETS} == {
        name: "higher" if name.endswith("accuracy") else "lower" for name in expected
    }


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("test_nll", "test"),
        ("client_seconds", "seconds"),
        ("noise_scale_dp", "noise"),
        ("client_accuracy_p5", "clients"),
    ],
)
def test_families(name, group):
    assert column(name).group == group


def test_a_private_run_shows_one_noise_scale():
    private = {"noise_scale": 3.2, "noise_scale_dp": 28.0, "noise_scale_low": 1.0}
    assert [seen_as(name, private) for name in private] == ["noise_scale_dp", "noise_scale_dp", "noise_scale_low"]
    assert {"noise_scale", "noise_scale_dp", "epsilon"} <= set(named("summary"))
