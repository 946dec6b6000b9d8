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
    assert costs.rows() == [("a", 0, 20.0, 1280.0, 0.9), ("b", 0, None, None, 0.4)]


def test_the_table_says_where_each_does_worst():
    names = list(first_run.CONTENDERS)
    costs = {"contender": names, "seed": [0] * 4, "rounds": [40.0, 20.0, 10.0, None], "examples": [1e3, 4e3, 8e3, None]}
    text = first_run.markdown(pl.DataFrame({**costs, first_run.SCORE: [0.8] * 4}), dict.fromkeys(names, 0.2), 0.75)
    worst = [line.split("|")[5].strip() for line in text.splitlines()[2:]]
    assert worst == ["4.0 x", "4.0 x", "8.0 x", "-"]


@pytest.mark.slow
def test_quick_form(tmp_path):
    first_run.main(["--quick", "--out", str(tmp_path)])
    assert (tmp_path / "figures" / "first_run.png").stat().st_size > 10_000
    assert len(pl.read_parquet(tmp_path / "results" / "first_run.parquet")) == 4 * 8
