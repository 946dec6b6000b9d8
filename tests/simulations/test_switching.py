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
        }
    ).write_parquet(tmp_path / "rounds.parquet")
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished"}))
    return tmp_path


def test_costs_by_hand(folder):
    from simulations.switching_costs import accuracy_at, budgets, cost_to, costs

    record = costs(folder)
    last = record.row(-1, named=True)
    assert (last["rounds"], last["examples"], last["bytes"]) == (20, 800, 400_000)
    assert last["seconds, WAN"] == pytest.approx(20 * (0.004 + 0.1 + 1000 / 2.5e6 + 1000 / 1.25e6))
    assert accuracy_at(record, "examples", 300) == pytest.approx(0.04 * 7.5)
    assert math.isnan(accuracy_at(record, "rounds", 21))
    assert cost_to(record, "bytes", 0.399) == 200_000 and math.isnan(cost_to(record, "bytes", 0.9))
    # Rounds are what five large ones come to, examples what the small run does.
    found = budgets(record, 5, CLIENTS, (64, 16))
    assert (found["rounds"], found["examples"], found["bytes"]) == (5, 800, 400_000)


def test_a_failed_run_has_no_accuracy(tmp_path):
    from simulations.switching_costs import accuracy_at, cost_to, costs

    record = costs(tmp_path)
    assert (
        record is None and math.isnan(accuracy_at(record, "rounds", 1)) and math.isnan(cost_to(record, "rounds", 0.1))
    )


def test_the_report_compares_with_the_best_fixed_batch_and_draws(tmp_path):
    from simulations.switching_report import markdown, save_figure

    accuracies = {"small": (0.70, 0.80), "large": (0.78, 0.60), "switch": (0.77, 0.79)}
    rows = []
    for name, values in accuracies.items():
        for axis, accuracy in zip(("rounds", "examples"), values, strict=True):
            row = {"task": "t", "model": "m", "partition": "p", "optimizer": "o", "controller": name, "seed": 0}
            row |= {
                "rate": 0.1,
                "axis": axis,
                "target": 0.5,
                "rounds_to_target": 10.0 * len(rows) + 9,
                "examples_to_target": 100.0 / (len(rows) + 1),
                "budget": 5.0,
                "share": 1.0,
            }
            rows.append(row | {"test_accuracy": accuracy})
    text = markdown(pl.DataFrame(rows))
    assert "| switch | 0.1 | 77.0 | 79.0 | -1.0 |" in text
    assert "-20.0 |" in text
    save_figure(pl.DataFrame(rows), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_quick_form_has_every_contender_and_axis(tmp_path, capsys):
    from simulations import switching

    switching.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    rows = pl.read_parquet(tmp_path / "results" / "switching.parquet")
    wanted = "task model partition controller seed axis budget test_accuracy cost_to_target".split()
    assert set(wanted) <= set(rows.columns)
    assert rows.height == len(switching.contenders(1)) * 5 * len(switching.SHARES)
    assert "worst gap" in capsys.readouterr().out
