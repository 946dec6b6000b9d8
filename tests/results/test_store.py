import json

import polars as pl
import pytest

from fedbatch.results.store import RunStore, read_rows


def row(i):
    costs = dict.fromkeys(("examples", "bytes_up", "bytes_down", "measured_seconds", "simulated_seconds"), i)
    noise = dict.fromkeys(("noise_scale", "noise_scale_low", "noise_scale_high"), float("inf"))
    tests = {"test_accuracy": float("nan"), "test_loss": float("nan"), "train_loss": 1.0}
    return {"round": i, "rounds": i + 1, **costs, **noise, "noise_scale_unit": "examples", **tests}


def test_rows_are_on_disk_at_once_and_a_failure_keeps_them(make_config, tmp_path):
    store = RunStore(tmp_path / "run", make_config())
    with pytest.raises(RuntimeError, match="boom"), store.recording(0):
        store.append(row(0))
        assert len(read_rows(store.folder / "rounds.jsonl")) == 1
        assert json.loads((store.folder / "summary.json").read_text())["status"] == "running"
        store.append(row(1))
        raise RuntimeError("boom")
    summary = json.loads((store.folder / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("failed", 2)
    assert pl.read_parquet(store.folder / "rounds.parquet")["noise_scale"].to_list() == [float("inf")] * 2


def test_an_interruption_is_told_apart(make_config, tmp_path):
    store = RunStore(tmp_path / "run", make_config())
    with pytest.raises(KeyboardInterrupt), store.recording(0):
        raise KeyboardInterrupt
    assert json.loads((store.folder / "summary.json").read_text())["status"] == "interrupted"
