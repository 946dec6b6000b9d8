"""The first picture: costs by hand, and the quick form."""

import polars as pl
import pytest

from simulations import first_run


def test_costs_are_those_of_the_first_evaluation_at_the_target():
    scores = {"a": [0.5, 0.8, 0.7, 0.9], "b": [0.1, 0.2, 0.3, 0.4]}
    rows = [
        {"contender": name, "seed": 0, "rounds": 10 * (i + 1), "examples": 640 * (i + 1), first_run.SCORE: score}
        for name, own in scores.items()
        for i, score in enumerate(own)
    ]
    costs = first_run.costs_of(pl.DataFrame(rows), 0.75)
    assert costs.rows() == [("a", 0, 20.0, 1280.0), ("b", 0, None, None)]

    text = first_run.markdown(pl.DataFrame(rows), {"a": 0.2, "b": 0.1}, (0.45, 0.75))
    assert text.splitlines()[2:] == [
        "| a | 0.2 | 10 | 640 | 20 | 1,280 | 90.0 |",
        "| b | 0.1 | - (1 failed) | - (1 failed) | - (1 failed) | - (1 failed) | 40.0 |",
    ]


@pytest.mark.slow
def test_quick_form(tmp_path):
    first_run.main(["--quick", "--out", str(tmp_path)])
    for name in ("first_run", "first_run_front"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert "differ by a factor" in (tmp_path / "results" / "first_run.md").read_text()
    assert len(pl.read_parquet(tmp_path / "results" / "first_run.parquet")) == 4 * 8
