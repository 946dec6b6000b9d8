"""The longer study of optimizers; its parts are tested with `simulations.optimizers`."""

import polars as pl
import pytest


@pytest.mark.slow
def test_the_quick_form_has_a_row_for_each_batch(tmp_path):
    from simulations import optimizers_long

    arguments = ["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--report", "none"]
    optimizers_long.main(arguments)
    rows = pl.read_parquet(tmp_path / "results" / "optimizers_long.parquet")
    assert rows.select("optimizer", "batch").rows() == [("MERIT", 32), ("MERIT", 256), ("Muon", 32), ("Muon", 256)]
    assert rows["loss"].is_finite().all()
