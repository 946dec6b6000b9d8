"""Kills at file operations and by signals: a run that goes on afterwards ends as the one that nobody killed."""

import builtins
import io
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from fedbatch.results.folder import is_used
from tests.server.test_reliability import CLOCKS, forked, left_by

SMALL = "dataset=digits population=20 cohort_size=4 model.width=8 controller=fixed executor=fused rounds=6 report=none "
SMALL += "checkpoint_every_rounds=2 evaluate_every_rounds=3 server_optimizer.momentum=0.9"
KINDS = {
    "plain": "noise_scale.halves=true",
    "private": "privacy=client_central privacy.noise_multiplier=1.0 privacy.target_epsilon=null weighting=auto",
    "active": "active=random active.seed_labels=100 active.labels_per_query=50 active.queries=2 active.retrain=true",
    "faulty": "faults=some faults.stale=0.5 faults.dropout=0.2 nodes=5 cohort_size=10",
    "local": "client_work=local_sgd client_work.epochs=2 executor=vmap",
    "keeping": "client_work=scaffold weighting=uniform cohort_size=12 executor=vmap nodes=2",
}
DYING = "from tests.results.test_folder_faults import die_at; die_at({0!r}, {1}); "
FOREVER = 1 << 30


def die_at(folder, number):
    """From now on this process ends at its ``number``-th file operation in the folder, as if by a kill."""
    done, real = [0], {name: getattr(os, name) for name in ("replace", "fsync", "unlink", "truncate", "ftruncate")}
    real_open = io.open

    def due():
        done[0] += 1
        if number == FOREVER:  # count them for the test
            Path(folder).with_suffix(".operations").write_text(str(done[0]))
        return done[0] == number

    class Dying:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __iter__(self):
            return iter(self._file)

        def write(self, content):
            if due():
                self._file.write(content[: len(content) // 2])
                self._file.flush()
                os._exit(9)
            return self._file.write(content)

    def opened(file, mode="r", *arguments, **options):
        inside = isinstance(file, str | Path) and Path(folder).name in Path(file).parts
        if not inside or mode in ("r", "rb"):
            return real_open(file, mode, *arguments, **options)
        if due():
            os._exit(9)
        return Dying(real_open(file, mode, *arguments, **options))

    def hooked(name):
        def call(*arguments, **options):
            if due():
                os._exit(9)
            return real[name](*arguments, **options)

        return call

    for name in real:
        setattr(os, name, hooked(name))
    io.open = builtins.open = opened


def command(folder, kind):
    """What starts or goes on with the run, as a user who is told to would."""
    return (
        [f"resume={folder.name}"]
        if is_used(folder)
        else [*SMALL.split(), *KINDS[kind].split(), f"run_dir={folder.name}"]
    )


def outcome(folder):
    """Hash of the parameters, rows without clocks, releases; and what each row says has been spent."""
    params, _, ledger = left_by(folder)
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert all(row.pop("seal") for row in rows)  # with the run's id in it
    spent = [(row.pop("epsilon_rdp", 0.0), row.pop("epsilon", 0.0) or 0.0) for row in rows]  # the latter when evaluated
    clocks = CLOCKS | {"query_seconds"}
    return (params, [{k: v for k, v in row.items() if k not in clocks} for row in rows], ledger), spent


def assert_same(done, whole):
    """Bit for bit; but a round that a kill undid is charged already when those before it are done again."""
    assert done[0] == whole[0]
    more = zip(done[1], whole[1], strict=True)
    assert all(a >= b for pair in more for a, b in zip(*pair, strict=True)) and done[1][-1:] == whole[1][-1:]


def went_on(tmp_path, folder, kind):
    """The run of the folder brought to its end; its outcome."""
    last = forked(tmp_path, *command(folder, kind))
    last.join()
    assert last.exitcode == 0
    assert not (folder / "rounds.jsonl.damaged").exists()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and "missing_rounds" not in summary
    return outcome(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_file_operation(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    whole = tmp_path / "whole"
    forked(tmp_path, *command(whole, kind), before=DYING.format(str(whole), FOREVER)).join()
    operations, generator = int(whole.with_suffix(".operations").read_text()), random.Random(kind)
    assert operations > 40
    expected = outcome(whole)
    for number in sorted(generator.sample(range(1, operations), 10)):
        folder = tmp_path / f"killed{number}"
        for n in (number, generator.randrange(1, 20)):  # once while it starts or runs, once more while it goes on
            process = forked(tmp_path, *command(folder, kind), before=DYING.format(str(folder), n))
            process.join()
            assert process.exitcode == 9
        assert_same(went_on(tmp_path, folder, kind), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ended_by_signals(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    went_on(tmp_path, tmp_path / "whole", kind)
    expected, generator = outcome(tmp_path / "whole"), random.Random(kind)
    folder = tmp_path / "ended"
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    for number in codes:
        process = forked(tmp_path, *command(folder, kind))
        begun = time.monotonic()
        while process.is_alive() and not (is_used(folder) and time.monotonic() - begun > 0.05):
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05))
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode in (codes[number], 0)  # 0: it was done before
    assert_same(went_on(tmp_path, folder, kind), expected)
