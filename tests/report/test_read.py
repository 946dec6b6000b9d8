import json
import math

import pytest

from fedbatch.report.page import page, write_report
from fedbatch.report.read import MOST, curves, flat, plain, read_runs, thinned


def test_curves_are_the_record_without_empty_columns(write_run):
    folder = write_run("a", columns={"attention_logit_max": [[0.5, 2.0], [1.0, 0.25]], "test_ece": float("nan")})
    run = read_runs([folder], folder)["runs"][0]
    assert run["name"] == "a" and run["status"] == "finished" and run["link"] == "."
    assert run["curves"]["bytes"] == [300, 600, 900, 1200, 1500, 1800]
    assert run["curves"]["test_accuracy"] == [None, 0.1, None, 0.3, None, 0.5]
    assert run["curves"]["noise_scale_high"][:2] == [1e300, 20.0]
    assert run["curves"]["attention_layer_0"] == [2.0] * 6 and run["curves"]["attention_layer_1"] == [1.0] * 6
    assert "test_ece" not in run["curves"] and "lr" in run["curves"]
    assert run["stages"] == {"plan_seconds": 1.5, "client_seconds": 3.0}


def test_under_privacy_the_noise_scale_is_the_one_decided_on(write_run):
    noisy = {"noise_scale_dp": 50.0, "noise_scale_dp_low": 40.0, "noise_scale_dp_high": 60.0}
    folder = write_run("a", columns=noisy)
    found = read_runs([folder], folder)["runs"][0]["curves"]
    assert (found["noise_scale"][0], found["noise_scale_low"][0], found["noise_scale_high"][0]) == (50.0, 40.0, 60.0)


def test_runs_keep_only_what_they_do_not_share(write_run, tmp_path):
    folders = [write_run(f"s/{seed}", f"seed={seed}", "server_optimizer.lr=0.5") for seed in (0, 1)]
    found = read_runs(folders, tmp_path / "s")
    assert [run["name"] for run in found["runs"]] == ["0", "1"]
    assert [run["config"] for run in found["runs"]] == [{"seed": s, "partitioner.seed": s} for s in (0, 1)]
    assert found["common"]["server_optimizer.lr"] == 0.5 and found["defaults"]["server_optimizer.lr"] == 0.1
    assert "run_dir" not in found["common"]


def test_broken_runs_are_shown_as_such(write_run, tmp_path):
    good, cut, failed = write_run("s/2"), write_run("s/9"), write_run("s/10", rounds=0)
    (cut / "summary.json").write_text('{"status": "fin')
    (failed / "summary.json").write_text('{"status": "failed", "error": "it broke"}')
    write_report([tmp_path / "s"])
    found = read_runs([good, cut, failed], tmp_path / "s")
    assert [run["status"] for run in found["runs"]] == ["finished", "unreadable", "failed"]
    assert "Unterminated string" in found["runs"][1]["summary"]["error"]
    assert found["runs"][2]["summary"]["error"] == "it broke" and found["runs"][2]["curves"]["rounds"] == []


def test_a_long_run_is_thinned_but_keeps_ends_switches_and_evaluations():
    rows = [
        {"test_loss": 1.0 if i % 50 == 7 else math.nan, "switch": "why" if i == 5_001 else ""} for i in range(9_999)
    ]
    kept = thinned(rows, MOST)
    assert len(kept) <= MOST + 3 and {0, 5_001, 9_998} <= set(kept) and kept == sorted(set(kept))
    assert set(range(7, 9_999, 50)) <= set(kept)
    assert thinned(rows[:10], MOST) == list(range(10))


def test_nothing_in_a_page_is_what_json_or_html_cannot_say():
    assert plain({"a": [float("nan"), float("-inf"), 3, True, "x", 1 / 3]}) == {
        "a": [None, -1e300, 3, True, "x", 0.333333]
    }
    assert flat({"a": {"top": float("inf")}}) == {"a.top": "inf"}
    html = page({"title": "</script><b>", "runs": []})
    assert "</script><b>" not in html and json.loads(html.split('type="application/json">')[1].split("</script>")[0])


def test_where_the_page_is_written(write_run, tmp_path, monkeypatch):
    one, two = write_run("one"), write_run("two")
    monkeypatch.chdir(tmp_path)
    assert write_report([one]) == one / "report.html"
    assert write_report([one, two]).resolve() == tmp_path / "report.html"
    assert (tmp_path / "report.html").stat().st_size < 6e6
    with pytest.raises(FileNotFoundError, match="no run in it"):
        write_report([tmp_path / "none"])


def test_no_rounds_no_curves():
    assert curves([], MOST)["rounds"] == []


def test_a_run_of_another_task_is_shown_by_its_own_score():
    """The page knows the column of the score, which way it is better, and draws it."""
    from fedbatch.report.read import columns, curves, scores

    runs = [{"summary": {"score": "test_mse", "score_better": "lower"}}, {"summary": {}}]
    assert scores(runs) == {"test_mse": "lower", "test_accuracy": "higher"}
    known = columns(scores(runs))
    assert "test_mse" in known["compare"] and known["labels"]["test_mse"] == "test mse"
    row = {"rounds": 1, "examples": 1, "simulated_seconds": 1.0, "phase": "a", "bytes_up": 1, "bytes_down": 1}
    row |= {"switch": "", "test_mse": 0.5, "training_set_mse": 0.4, "client_mse_p50": 0.6, "test_mae": 0.1}
    drawn = curves([row], 1, "test_mse")
    assert (drawn["test_mse"], drawn["training_set_mse"], drawn["client_mse_p50"]) == ([0.5], [0.4], [0.6])
