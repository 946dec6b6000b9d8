import math

import polars as pl
import pytest


def test_the_schedule_sees_as_many_examples_as_the_fixed_batch():
    from simulations.dp_language import CLIENTS, FULL, cells

    (schedule,) = (cell for cell in cells(FULL) if cell.part == "schedule")
    given = dict(option.split("=", 1) for option in schedule.overrides)
    halves = int(given["client_batch_size"]) + int(given["controller.phases.large.client_batch_size"])
    assert halves == 2 * FULL.client_batches[1] and int(given["controller.starts.large"]) == FULL.rounds // 2
    assert int(given["controller.phases.large.cohort_size"]) == CLIENTS


def test_the_report_gives_percent_and_draws_one_line_for_each_epsilon(tmp_path):
    from simulations.dp_language import markdown, save_figure

    rows = []
    for epsilon, accuracy in {8.0: 0.2, math.inf: 0.3}.items():
        for batch in ("256", "1,024"):
            row = {"part": "batch", "name": batch, "epsilon": epsilon, "seed": 0, "rate": 0.004, "loss": 3.0}
            rows.append(row | {"accuracy": accuracy, "examples": 10.0, "weight_norm": 2.0})
    text = markdown(pl.DataFrame(rows))
    assert "| batch | 1,024 | 8.0 | 20.0 | 3.000 |" in text and "| none | 30.0 |" in text
    save_figure(pl.DataFrame(rows), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_quick_form_runs_every_cell(tmp_path):
    from simulations import dp_language

    dp_language.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    rows = pl.read_parquet(tmp_path / "results" / "dp_language.parquet")
    assert rows.height == len(dp_language.cells(dp_language.QUICK)) and rows["accuracy"].is_finite().all()
