import polars as pl
import pytest


def test_the_table_and_the_picture_have_a_line_for_each_mechanism(tmp_path):
    from simulations.audit import markdown, save_figure

    row = {"claim": 8.0, "bound": 3.0, "bound_without_shape": 2.0, "refuted": False, "control_bound": 9.0}
    rows = pl.DataFrame([row | {"mechanism": name, "control_caught": name == "a"} for name in ("a", "b")])
    assert "| a | 8.00 | 3.00 | 2.00 | 9.0 | yes |" in markdown(rows) and "| 9.0 | no |" in markdown(rows)
    save_figure(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_no_claim_of_the_committed_table_is_refuted_and_every_control_is_caught():
    from simulations.audit import KINDS
    from simulations.study import ROOT

    rows = pl.read_parquet(ROOT / "docs" / "results" / "audit.parquet")
    assert set(rows["mechanism"]) == set(KINDS)
    assert (rows["bound"] < rows["claim"]).all() and rows["control_caught"].all() and not rows["refuted"].any()


@pytest.mark.slow
def test_the_quick_form_runs(tmp_path, monkeypatch):
    from simulations import audit

    monkeypatch.setattr(audit, "KINDS", dict(list(audit.KINDS.items())[:1]))
    audit.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    assert pl.read_parquet(tmp_path / "results" / "audit.parquet").height == 1
