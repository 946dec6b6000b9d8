"""The study of advice on models of one's own."""

import polars as pl
import pytest


def test_the_table_says_what_was_promised_and_taken():
    from simulations.advised import markdown

    nan = float("nan")
    runs = [(1.0, 110.0), (1.0, 130.0), (0.5, 190.0), (0.5, nan)]
    row = {"task": "a", "line": "rounds", "batch": 64.0, "loss": 0.3, "promised": 100.0, "low": 90.0, "high": 120.0}
    rows = pl.DataFrame([row | {"ran": 160, "share": s, "seed": i, "taken": t} for i, (s, t) in enumerate(runs)])
    *_, line, _, words = markdown(rows).splitlines()
    assert line == "| a | 0.3 | rounds | 64 | 100 (90-120) | 110, 130 | 190, > 160 |"
    assert words.endswith("1 within 1.5. Rms factor 1.20.")


@pytest.mark.slow
def test_the_quick_form_measures_both_lines(tmp_path):
    from simulations import advised

    advised.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--report", "none"])
    rows = pl.read_parquet(tmp_path / "results" / "advised.parquet")
    assert rows.group_by("line", maintain_order=True).len().rows() == [("rounds", 2), ("examples", 2)]
    assert (rows.filter(pl.col("taken").is_finite())["taken"] <= rows["ran"].max()).all()
