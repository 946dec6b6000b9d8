import json
import math
import tracemalloc

import polars as pl
import pytest

from fedbatch.core.errors import ConfigError
from fedbatch.results import record
from fedbatch.results.record import read_rows, reconcile, sample, write_parquet
from fedbatch.results.store import RunStore


def row(i, **more):
    costs = dict.fromkeys(("examples", "bytes_up", "bytes_down", "measured_seconds", "simulated_seconds"), 10 * i)
    noise = {"noise_scale": math.inf, "noise_scale_low": 1.0, "noise_scale_high": math.inf}
    tests = {"test_accuracy": math.nan, "test_loss": math.nan, "train_loss": 1.0}
    return {"round": i, "rounds": i + 1, **costs, **noise, "noise_scale_unit": "examples", **tests, "switch": ""} | more


@pytest.fixture
def path(tmp_path):
    """A record of five rounds, in the words of an earlier fedbatch."""
    path = tmp_path / "rounds.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(5)))
    return path


def rounds(path):
    return [each["round"] for each in read_rows(path)]


def strict(line):
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_sound_record_is_kept_in_silence_and_becomes_strict_json(path, caplog):
    with open(path, "a") as file:
        file.write('{"round": 5, "cut off by a ki')
    assert reconcile(path, 4, {"examples": 30}) == [] and rounds(path) == [0, 1, 2, 3] and not caplog.records
    lines = [strict(line) for line in path.read_text().splitlines()]
    assert lines[0]["test_loss"] is None and lines[0]["noise_scale_high"] is None
    again = read_rows(path)[0]
    assert math.isnan(again["test_loss"]) and again["noise_scale_high"] == math.inf  # and not NaN
    assert not path.with_name("rounds.jsonl.damaged").exists()


DAMAGE = {
    "short": (lambda lines: lines[:3], [3, 4], "missing rounds: 3-4"),
    "gap": (lambda lines: lines[:1] + lines[3:], [1, 2], "missing rounds: 1-2"),
    "twice": (lambda lines: [*lines, lines[2]], [], "rounds twice: 2"),
    "torn in the middle": (
        lambda lines: [lines[0], lines[1][:40], *lines[2:]],
        [1],
        "unreadable lines: 2; missing rounds: 1",
    ),
    "not a row": (
        lambda lines: [*lines, "[1]", '{"round": "x"}', '{"round": 1}', "nul\0"],
        [],
        "unreadable lines: 6-9",
    ),
    "gone": (lambda lines: [], [0, 1, 2, 3, 4], "missing rounds: 0-4"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_wrong_is_said_and_nothing_is_lost(path, caplog, what):
    change, missing, said = DAMAGE[what]
    text = "".join(line + "\n" for line in change(path.read_text().splitlines()))
    path.write_text(text)
    assert reconcile(path, 5, {"examples": 40}) == missing
    assert rounds(path) == [i for i in range(5) if i not in missing]
    assert len(caplog.records) == 1 and said in caplog.text and "\n" not in caplog.records[0].getMessage()
    copy = path.with_name("rounds.jsonl.damaged")
    assert copy.exists() == ("unreadable" in said or "twice" in said)
    assert not copy.exists() or copy.read_text() == text


def test_the_record_of_another_run_is_refused(path):
    with pytest.raises(ConfigError, match="not the record of this run"):
        reconcile(path, 5, {"examples": 41})
    assert rounds(path) == [0, 1, 2, 3, 4]


def test_missing_rounds_stand_in_the_summary(make_config, path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[3:]))
    store = RunStore(path.parent, make_config())
    with store.recording(5):
        pass
    assert json.loads((path.parent / "summary.json").read_text())["missing_rounds"] == "0-2"


def test_readers_leave_out_a_damaged_line_only(path, caplog):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:30], *lines[3:]]) + "\n")
    assert rounds(path) == [0, 1, 3, 4] and "unreadable lines, left out: 3" in caplog.text


def test_the_table_has_all_rows_and_infinities_whatever_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("fedbatch.results.record.CHUNK", 3)
    rows = [row(i, later=[1.0, math.nan]) if i > 4 else row(i, early=None if i < 3 else i) for i in range(8)]
    path = tmp_path / "rounds.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    write_parquet(path, tmp_path / "rounds.parquet", {"run": "abc"})
    table = pl.read_parquet(tmp_path / "rounds.parquet")
    assert table["round"].to_list() == list(range(8)) and table["noise_scale_high"].to_list() == [math.inf] * 8
    assert table["early"].to_list() == [None, None, None, 3, 4, None, None, None]
    assert table["later"][4] is None and math.isnan(table["later"][5][1])
    assert pl.read_parquet_metadata(tmp_path / "rounds.parquet")["run"] == "abc"


def test_memory_does_not_grow_with_rounds(make_config, tmp_path):
    store, peaks = RunStore(tmp_path, make_config()), []
    tracemalloc.start()
    with store.recording(0):
        for i in range(5000):
            store.append(row(i))
            if i in (999, 4999):
                peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.reset_peak()
        store.last_values()
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50_000 and used - peaks[0] < 500_000
    assert peak - used < 4_000_000  # a chunk of the table at a time; all rows take 10 MB
    assert len(sample(tmp_path / "rounds.jsonl", 100)) <= 102


def test_changed_lines_and_those_of_another_run_are_left_out_and_said(tmp_path, caplog):
    path = tmp_path / record.FILE
    rows = [{"round": i, "rounds": i + 1, "test_loss": float("nan"), "train_loss": 0.1 * i} for i in range(4)]
    lines = [record.sealed(row, "ours") for row in rows]
    lines[1] = lines[1].replace("0.1", "77.0")
    lines[2] = record.sealed(rows[2], "theirs")
    path.write_text("\n".join(lines) + "\n")
    assert record.reconcile(path, 4, {}, "ours") == [1, 2]
    assert "changed lines, or another run's: 2-3" in caplog.text and "missing rounds: 1-2" in caplog.text
    assert [row["round"] for row in record.read_rows(path)] == [0, 3] and "seal" not in record.read_rows(path)[0]
    assert path.read_text() == f"{lines[0]}\n{lines[3]}\n"
