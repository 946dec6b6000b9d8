import polars as pl
import pytest


@pytest.mark.slow
def test_the_quick_form_runs_every_condition(tmp_path):
    from simulations import noise_scale_conditions as study

    study.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    rows = pl.read_parquet(tmp_path / "results" / "noise_scale_conditions.parquet")
    wanted = {(part, name) for part, conditions in study.CONDITIONS.items() for name in conditions}
    assert set(rows.select("part", "condition").iter_rows()) == wanted and (rows["status"] == "finished").all()
    last = rows.filter(pl.col("rounds") == 60)
    drift = {name: last.filter(pl.col("condition") == name)["m_drift"][0] for name in ("IID", "Dirichlet 0.3")}
    assert drift["Dirichlet 0.3"] > 1 > drift["IID"]
