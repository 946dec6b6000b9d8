from pathlib import Path

import polars as pl
import pytest

from simulations import correlated_noise as study


def test_cells_compare_noise_at_one_level_and_epsilon():
    cells = study.cells(study.FULL)
    assert len(cells) == len(study.FULL.levels) * len(study.FULL.epsilons) * 2
    assert {bands for _, _, bands in cells} == {"1", "auto"}


def test_the_prediction_is_over_that_of_one_band():
    rows = study.prediction(study.QUICK, 0.2)
    assert [row["bands"] for row in rows] == [1, 2, 4] and rows[0]["ratio"] == 1
    # Everyone takes part in every fourth round at q' = 0.8; noise grows by less than what correlation saves.
    assert 0.5 < rows[2]["ratio"] < 1


def test_the_report_shows_bands_spread_and_prediction(tmp_path):
    common = {"level": "client", "epsilon": 8.0, "rate": 1.0, "noise_multiplier": 1.5}
    rows = [
        {**common, "noise": "independent", "bands": 1, "seed": 0, "accuracy": 0.5},
        {**common, "noise": "independent", "bands": 1, "seed": 1, "accuracy": 0.6},
        {**common, "noise": "correlated", "bands": 4, "seed": 0, "accuracy": 0.7},
    ]
    predicted = [{"q": 0.2, "epsilon": 8.0, "bands": 4.0, "ratio": 0.9}]
    text = study.markdown(pl.DataFrame(rows), predicted)
    assert "| client | 8 | independent | 1 | 1.50 | 1 | 55.0 +- 7.1 |" in text
    assert "| client | 8 | correlated | 4 | 1.50 | 1 | 70.0 |" in text and "| 0.2 | 8 | 4: 0.90 |" in text
    study.save_figure(
        [row | {"q": q} for row in predicted for q in study.QUICK.sample_rates], study.QUICK, tmp_path / "f.png"
    )
    assert (tmp_path / "f.png").is_file()


def test_the_page_quotes_the_study_as_it_is():
    root = Path(__file__).parents[2] / "docs"
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (root / "results" / "correlated_noise.md").read_text().splitlines()
        if "independent |" in line or "correlated |" in line
    ]
    page = (root / "correlated_noise.md").read_text()
    for before, after in zip(cells[::2], cells[1::2], strict=True):
        accuracies = [cell[-1].replace("+-", "±") for cell in (before, after)]
        assert f"| {before[1]} | {accuracies[0]} | {accuracies[1]} | {after[3]} |" in page


@pytest.mark.slow
def test_the_quick_form_runs(tmp_path):
    study.main(["--quick", "--out", str(tmp_path)])
    table = pl.read_parquet(tmp_path / "results" / "correlated_noise.parquet")
    assert table["bands"].to_list() == [1, 4] and table["accuracy"].is_finite().all()
