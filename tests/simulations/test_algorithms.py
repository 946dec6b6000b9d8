import polars as pl
import pytest


def rows():
    seeds = {"seed": [0, 0, 1, 1], "rounds": [5, 10, 5, 10], "bytes_up": [1e6, 2e6, 1e6, 2e6], "bytes_down": [0.0] * 4}
    scores = {"simulated_seconds": [3.0, 6.0, 3.0, 6.0], "test_accuracy": [0.2, 0.6, 0.2, 0.3]}
    return pl.DataFrame(seeds | scores)


def test_costs_are_those_of_the_first_evaluation_there():
    from simulations.algorithms_report import first_at

    found = first_at(rows(), 0.5)
    assert found.row(0) == (0, 10.0, 2.0, 6.0)
    assert found.row(1) == (1, None, None, None)


@pytest.mark.slow
def test_the_quick_form_has_every_algorithm(tmp_path, capsys):
    from simulations import algorithms

    algorithms.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "algorithms.parquet")
    assert set(found["algorithm"]) == set(algorithms.ALGORITHMS)
    assert "simulated s to 30%" in capsys.readouterr().out
    assert (tmp_path / "figures" / "algorithms.png").stat().st_size > 10_000
