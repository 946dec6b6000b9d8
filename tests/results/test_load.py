import json
import os
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

import fedbatch
from fedbatch.results.status import QUIET_SECONDS, state, status_table
from fedbatch.results.store import RunStore


def make_run(make_config, name, rows, error=None, overrides=()):
    config = make_config(*overrides, folder=name)

    store = RunStore(Path(config.run_dir), config)
    try:
        with store.recording(0):
            for row in rows:
                store.append(row)
            if error:
                raise error
    except RuntimeError:
        pass
    return store.folder


def row(round_, **more):
    names = "examples bytes_up bytes_down measured_seconds simulated_seconds train_loss noise_scale noise_scale_low"
    zero = dict.fromkeys([*names.split(), "noise_scale_high"], 0.0)
    start = {"round": round_, "rounds": round_ + 1, "noise_scale_unit": "examples", "test_loss": 1.0}
    return start | zero | {"test_accuracy": 0.5} | more


def test_runs_and_rounds_as_tables(make_config, tmp_path):
    make_run(make_config, "a/x", [row(0), row(1, extra=[1.0, 2.0])], overrides=["model.width=4"])
    make_run(make_config, "b", [row(0)], RuntimeError("it broke\nhere"), ["model=logistic"])
    runs, rounds = fedbatch.load_runs(tmp_path), fedbatch.load_rounds(tmp_path)
    assert runs["run"].to_list() == ["a/x", "b"] and runs["model.width"].to_list() == [4, None]
    assert runs["error"].to_list() == [None, "it broke"] and runs["seed"].to_list() == [0, 0]
    assert runs["status"].to_list() == ["running", "failed"]  # finish() writes the last word, after this block
    assert rounds["run"].to_list() == ["a/x", "a/x", "b"] and rounds["extra"].to_list() == [None, [1.0, 2.0], None]
    assert fedbatch.load_runs(tmp_path / "b")["run"].to_list() == ["b"]
    assert isinstance(json.loads(runs["versions"][0]), dict) and isinstance(rounds, pl.DataFrame)


def test_a_broken_summary_does_not_hide_the_other_runs(make_config, tmp_path):
    make_run(make_config, "good", [row(0)])
    for name, text in {"empty": "{}", "half": '{"status": "fin', "list": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        (tmp_path / name / "summary.json").write_text(text)
    assert fedbatch.load_runs(tmp_path)["run"].to_list() == ["good"]


def test_no_run_no_table(tmp_path):
    for read in (fedbatch.load_runs, fedbatch.load_rounds, status_table):
        with pytest.raises(FileNotFoundError, match="no run in it"):
            read(tmp_path)


def test_status_tells_errors_and_how_to_go_on(make_config, tmp_path):
    failed = make_run(make_config, "failed", [row(0)], RuntimeError("it [b]roke"))
    (failed / "checkpoints").mkdir()
    (failed / "checkpoints" / "round_1.pt").touch()
    killed = make_run(make_config, "killed", [row(0), row(1)])
    assert state(killed) == "running"
    old = time.time() - QUIET_SECONDS - 1
    for name in ("summary.json", "rounds.jsonl"):
        os.utime(killed / name, (old, old))
    console = Console(width=400)
    with console.capture() as text:
        console.print(status_table(tmp_path))
    lines = [line for line in text.get().splitlines() if str(tmp_path) in line]
    assert f"it [b]roke; fedbatch resume={failed}" in lines[0] and "failed" in lines[0]
    assert "killed" in lines[1] and "resume=" not in lines[1] and " 2 " in lines[1]
