import json
import math

import polars as pl
import pytest

CLIENTS, BATCH, MODEL_BYTES = 10, 4, 1000


@pytest.fixture
def folder(tmp_path):
    """A run of 20 rounds, 10 clients of 4 examples, whose accuracy rises by 0.04 a round."""
    rounds = range(1, 21)
    pl.DataFrame(
        {
            "rounds": rounds,
            "cohort_size": CLIENTS,
            "global_batch": CLIENTS * BATCH,
            "examples": [CLIENTS * BATCH * r for r in rounds],
            "bytes_up": [CLIENTS * MODEL_BYTES * r for r in rounds],
            "bytes_down": [CLIENTS * MODEL_BYTES * r for r in rounds],
            "test_accuracy": [0.04 * r if r % 2 == 0 else math.nan for r in rounds],
            "average_test_accuracy": [0.03 * r if r % 2 == 0 else math.nan for r in rounds],
        }
    ).write_parquet(tmp_path / "rounds.parquet")
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished"}))
    return tmp_path


def test_costs_by_hand(folder):
    from simulations.switching_costs import accuracy_at, budgets, cost_to, costs, spends

    record = costs(folder)
    last = record.row(-1, named=True)
    assert (last["rounds"], last["examples"], last["bytes"]) == (20, 800, 400_000)
    assert last["seconds, WAN"] == pytest.approx(20 * (0.004 + 0.1 + 1000 / 2.5e6 + 1000 / 1.25e6))
    assert accuracy_at(record, "examples", 300, "test_accuracy") == pytest.approx(0.04 * 7.5)
    assert accuracy_at(record, "examples", 300, "average_test_accuracy") == pytest.approx(0.03 * 7.5)
    assert math.isnan(accuracy_at(record, "rounds", 21, "test_accuracy"))
    assert cost_to(record, "bytes", 0.40, "test_accuracy") == pytest.approx(200_000)
    assert cost_to(record, "rounds", 0.02, "test_accuracy") == pytest.approx(0.5)  # on the way from nothing
    assert math.isnan(cost_to(record, "bytes", 0.9, "test_accuracy"))
    # Rounds are what five large ones come to, examples what the small run does.
    found = budgets(record, 5, CLIENTS, (64, 16))
    assert (found["rounds"], found["examples"], found["bytes"]) == (5, 800, 400_000)
    assert spends(record, found) and not spends(record, found | {"rounds": 21})


def test_a_failed_run_has_no_accuracy(tmp_path):
    from simulations.switching_costs import accuracy_at, cost_to, costs

    record = costs(tmp_path)
    assert record is None and math.isnan(accuracy_at(record, "rounds", 1, "test_accuracy"))
    assert math.isnan(cost_to(record, "rounds", 0.1, "test_accuracy"))


def study_rows():
    accuracies = {"small": (0.70, 0.80), "large": (0.78, 0.60), "ladder": (0.77, 0.79)}
    rows = []
    for name, values in accuracies.items():
        for seed, for_tuning in ((0, False), (1, False), (100, True)):
            for axis, accuracy in zip(("rounds", "examples"), values, strict=True):
                row = {"model": "m", "partition": "p", "optimizer": "o", "controller": name, "seed": seed, "rate": 0.1}
                row |= {"axis": axis, "target": 0.5, "budget": 8.0, "for_tuning": for_tuning}
                row |= {"test_accuracy": accuracy, "last_test_accuracy": accuracy, "cost_to_target": 10 / accuracy}
                row |= {"at_0.25_of_rounds": accuracy / 4, "at_0.5_of_rounds": accuracy / 2}
                rows.append(row | {"rounds_to_target": 9.0 + len(rows), "examples_to_target": 99.0})
    return pl.DataFrame(rows)


def test_gaps_and_cost_ratios_are_against_the_best_fixed_batch_of_each_axis():
    from simulations.switching_report import gaps_of, ratios_of

    rows = study_rows()
    assert gaps_of(rows, "ladder").ravel() == pytest.approx([-1, -1, -1, -1])
    assert gaps_of(rows, "large").ravel() == pytest.approx([0, -20, 0, -20])
    assert ratios_of(rows, "ladder")[0] == pytest.approx([0.78 / 0.77, 0.80 / 0.79])


def test_the_tables_and_both_figures(tmp_path):
    from simulations.switching_figures import save_figure, save_steep
    from simulations.switching_report import markdown

    text = markdown(study_rows())
    assert "| -1.0 (-1.0 to -1.0) | +0.0 | 1.01 |" in text and "### At equal rounds" in text
    for save, name in ((save_figure, "front.png"), (save_steep, "steep.png")):
        save(study_rows(), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.slow
def test_the_quick_form_has_every_contender_and_axis(tmp_path, capsys):
    from simulations import switching

    switching.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    rows = pl.read_parquet(tmp_path / "results" / "switching.parquet")
    assert rows["controller"].n_unique() == 9 and rows.height == 9 * 5 * 3
    assert "worst gap" in capsys.readouterr().out
