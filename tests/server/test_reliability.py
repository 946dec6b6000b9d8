"""Rows of docs/reliability.md; the others are in test_faults, test_mutated_messages and test_bad_configs."""

import base64
import builtins
import errno
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedbatch import client_app, server_app
from fedbatch.api import execute
from fedbatch.cli import app
from fedbatch.config.schema import parse
from fedbatch.core.errors import Interrupted, RunFailedError
from fedbatch.results.store import RunStore, read_rows
from fedbatch.runtime.flower import new_context
from fedbatch.runtime.local import LocalGrid
from fedbatch.server import checkpoint
from fedbatch.server import temperature as posthoc
from fedbatch.setup import task

PRIVATE = "privacy=client_central controller=fixed privacy.noise_multiplier=1.0 privacy.target_epsilon=null".split()
CLOCKS = {f"{lap}_seconds" for lap in ("plan", "client", "aggregate", "step", "evaluate", "measured")}


def run(config):
    """All that must be equal between two runs: hash of the parameters, record, ledger."""
    task.load.cache_clear()
    execute(config)
    return left_by(Path(config.run_dir))


def left_by(folder):
    ledger = folder / "ledger.jsonl"
    summary = json.loads((folder / "summary.json").read_text())
    return summary["params_sha256"], record(folder), ledger.read_bytes() if ledger.exists() else b""


def record(folder):
    """The rows without wall-clock columns, as text, for not-a-number is not equal to itself."""
    rows = read_rows(folder / "rounds.jsonl")
    return [json.dumps({name: value for name, value in row.items() if name not in CLOCKS}) for row in rows]


@pytest.mark.parametrize("settings", [["noise_scale.halves=true"], PRIVATE], ids=["plain", "private"])
def test_a_rerun_leaves_the_same_hash_record_and_ledger(make_config, settings):
    runs = [run(make_config(*settings, "executor=fused", folder=f"run{i}")) for i in range(5)]
    assert all(left == runs[0] for left in runs) and len(runs[0][1]) == 4
    assert bool(runs[0][2]) == (settings is PRIVATE)
    assert run(make_config(*settings, "executor=fused", "seed=1", folder="other"))[0] != runs[0][0]


@pytest.mark.parametrize("settings", [["metrics=calibration"], ["temperature=shared", "client_holdout=0.25"]])
def test_a_failure_in_the_last_scores_loses_no_round(make_config, monkeypatch, settings):
    """Scores come after the last round; whatever fails there, the run goes on from its end."""
    whole = run(make_config(*settings, "report=none", folder="whole"))
    config = make_config(*settings, "report=none", folder="broken")
    with monkeypatch.context() as patch:
        patch.setattr(posthoc, "finish", broken)
        task.forget()
        with pytest.raises(RuntimeError, match="scores"):
            execute(config)
    folder = Path(config.run_dir)
    assert checkpoint.load_latest(folder / "checkpoints").round == config.rounds
    assert len(read_rows(folder / "rounds.jsonl")) == config.rounds
    assert run(replace(config, resume=str(folder))) == whole


def broken(*_):
    raise RuntimeError("no scores")


@pytest.mark.slow
def test_the_order_of_arrival_changes_nothing(make_config, monkeypatch):
    settings = ("nodes=5", "controller=fixed", "noise_scale.cosine=true", "client_holdout=0.2", "executor=fused")
    settings = (*settings, "cohort_size=20", "evaluate_every_rounds=1")
    expected, orders = run(make_config(*settings, folder="in_order")), set()
    original = LocalGrid.send_and_receive
    for seed in range(20):
        generator = random.Random(seed)

        def shuffled(self, messages, *, timeout=None, generator=generator):
            replies = list(original(self, messages, timeout=timeout))
            generator.shuffle(replies)
            orders.add(tuple(reply.metadata.src_node_id for reply in replies))
            return iter(replies)

        monkeypatch.setattr(LocalGrid, "send_and_receive", shuffled)
        assert run(make_config(*settings, folder=f"order{seed}")) == expected
    assert len(orders) > 50


@pytest.mark.slow
def test_of_a_thousand_duplicates_and_replays_none_counts(make_config):
    settings = ("nodes=10", "population=10", "cohort_size=10", "sampling=all", "controller=fixed", "executor=fused")
    once = run(make_config(*settings, "rounds=50", folder="once"))
    assert run(make_config(*settings, "rounds=50", "faults=some", "faults.duplicate=1.0", folder="twice")) == once
    config = make_config(*settings, "rounds=101", "faults=some", "faults.stale=0.5", folder="stale")
    rows = [json.loads(row) for row in run(config)[1]]
    assert sum(row["rejected_replies"] for row in rows) == 500
    assert [row["cohort_size"] for row in rows] == [10] + [5] * 100


KILLED = "dataset=digits population=20 cohort_size=4 model.width=8 controller=fixed executor=fused rounds=2000 "
KILLED += "checkpoint_every_rounds=1 evaluate_every_rounds=1000 server_optimizer.momentum=0.9"


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_as_the_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    forked(tmp_path, *KILLED.split(), "run_dir=whole").join()
    generator, folder = random.Random(0), tmp_path / "killed"
    arguments = [*KILLED.split(), "run_dir=killed"]
    for _ in range(20):
        process = forked(tmp_path, *arguments)
        wait_for_rounds(process, folder)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # and not finished before
        saved = checkpoint.load_latest(folder / "checkpoints").round
        done = len(read_rows(folder / "rounds.jsonl"))
        assert saved <= done <= saved + 1  # at most one round is done again
        arguments = ["resume=killed"]
    last = forked(tmp_path, *arguments)
    last.join()
    assert last.exitcode == 0
    assert left_by(folder) == left_by(tmp_path / "whole") and len(record(folder)) == 2000


def forked(cwd, *arguments, before=""):
    """The command in a process of its own, from a clean one that has the imports done: they take most of a start.

    ``before`` is code that is run first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fedbatch.cli.app", "fedbatch.cli.run", "sklearn.datasets", "torch._dynamo"])
    code = f"import os, sys; os.chdir({str(cwd)!r}); sys.argv = {['fedbatch', *arguments]!r}; {before}"
    process = context.Process(target=exec, args=(code + "from fedbatch.cli.app import main; main()", {}))
    process.start()
    return process


def start(cwd, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "fedbatch", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_rounds(process, folder):
    """Until the process that was just started has done a round of its own."""
    before, path = len(read_rows(folder / "rounds.jsonl")), folder / "rounds.jsonl"
    inode = path.stat().st_ino if path.exists() else 0
    while process.is_alive():
        # a run that begins puts a new file in the place of the record, so the old one does not count
        if path.exists() and path.stat().st_ino != inode and len(read_rows(path)) > before:
            return
        time.sleep(0.005)
    raise AssertionError("ended before its first round")


def damaged(content, generator):
    """Cut short somewhere, or with one bit flipped."""
    where = generator.randrange(len(content))
    if generator.random() < 0.5:
        return content[:where]
    return content[:where] + bytes([content[where] ^ 1 << generator.randrange(8)]) + content[where + 1 :]


def test_a_damaged_checkpoint_is_detected_and_the_one_before_used(make_config):
    config = make_config("checkpoint_every_rounds=1", "executor=fused")
    expected = run(config)
    folder, generator = Path(config.run_dir) / "checkpoints", random.Random(0)
    _, last = sorted(folder.iterdir())
    content = last.read_bytes()
    for _ in range(100):
        last.write_bytes(damaged(content, generator))
        with pytest.warns(UserWarning, match=f"{last.name} is damaged; trying the one before"):
            assert checkpoint.load_latest(folder).round == 3
    last.write_bytes(content)
    assert checkpoint.load_latest(folder).round == 4
    last.write_bytes(damaged(content, generator))
    with pytest.warns(UserWarning, match="is damaged"):
        assert run(parse(json.loads(config.to_json()) | {"resume": config.run_dir})) == expected


TINY = "dataset=digits population=20 cohort_size=4 model.width=8 controller=fixed executor=fused rounds=6 run_dir=out"


def command(monkeypatch, capsys, *arguments):
    """Exit code and what the command says on stderr, in this process."""
    monkeypatch.setattr(sys, "argv", ["fedbatch", *arguments])
    try:
        app.main()
    except SystemExit as end:
        return end.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


def full_disk(monkeypatch, allowed):
    """From now on the first ``allowed`` bytes can be written under the run folder, and no more."""
    real, left = io.open, [allowed]

    def no_space(name):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))

    def limited(file, mode="r", *arguments, **options):
        opened = real(file, mode, *arguments, **options)
        if "out" not in Path(str(file)).parts or mode in ("r", "rb"):
            return opened
        write = opened.write

        class Limited:
            def __getattr__(self, name):
                return getattr(opened, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                opened.close()

            def write(self, content):
                left[0] -= len(content)
                return write(content) if left[0] >= 0 else no_space(file)

        return Limited()

    monkeypatch.setattr(io, "open", limited)
    monkeypatch.setattr(builtins, "open", limited)


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [100, 6_000, 20_000, 50_000, 60_000])
def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_valid(allowed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, capsys, *TINY.split(), "run_dir=whole")[0] == 0
    with monkeypatch.context() as full:
        full_disk(full, allowed)
        code, said = command(full, capsys, *TINY.split(), "checkpoint_every_rounds=1")
    assert code == 1 and said.count("\n") == 1 and said.startswith("fedbatch: ")
    assert "No space left on device" in said
    checkpoints = tmp_path / "out" / "checkpoints"
    if not list(checkpoints.glob("*.ckpt")):  # not even one fits: nothing to resume
        assert allowed <= 6_000
        return
    assert command(monkeypatch, capsys, "resume=out")[0] == 0
    assert left_by(tmp_path / "out")[:2] == left_by(tmp_path / "whole")[:2]


def test_a_disk_that_fails_when_it_is_told_to_keep_a_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kept, synced = os.fsync, []

    def fails_later(descriptor):
        synced.append(descriptor)
        if len(synced) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        kept(descriptor)

    monkeypatch.setattr(os, "fsync", fails_later)
    code, said = command(monkeypatch, capsys, *TINY.split(), "checkpoint_every_rounds=1")
    assert (code, said.count("\n")) == (1, 1) and "No space left on device" in said
    assert checkpoint.load_latest(tmp_path / "out" / "checkpoints").round == 3
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "failed"


def test_names_from_a_config_do_not_leave_the_run_folder(make_config, tmp_path):
    evil = "'../../../evil'"
    config = make_config("controller=fixed", f"controller.phase.name={evil}", "target_metric=test_loss", "rounds=2")
    before = set(tmp_path.rglob("*"))
    run(config)
    folder = Path(config.run_dir)
    new = set(tmp_path.rglob("*")) - before
    assert new and all(path == folder or path.is_relative_to(folder) for path in new)
    assert not [path for parent in tmp_path.parents for path in parent.glob("evil*")]


@pytest.mark.slow
def test_the_secret_is_nowhere_in_the_run_folder_or_in_what_is_said(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments = [*TINY.split(), *PRIVATE, f"privacy.secret_file={tmp_path / 'key'}", "checkpoint_every_rounds=1"]
    done = start(tmp_path, *arguments)
    said = done.communicate()[1]
    assert done.returncode == 0, said
    secret = (tmp_path / "key").read_bytes()
    forms = [secret, secret.hex().encode(), base64.b64encode(secret), secret[:16], repr(secret)[2:-1].encode()]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 7
    assert not [(path, form) for path in files for form in forms if form in path.read_bytes()]
    assert not any(form in said for form in forms)


@pytest.mark.parametrize("when", ["between two answers", "while it waits", "at the end of a round"])
def test_an_interrupted_round_is_done_again(make_config, monkeypatch, when):
    settings = ("nodes=5", "controller=fixed", "executor=fused", "cohort_size=20", "noise_scale.halves=true")
    whole = run(make_config(*settings, folder="whole"))
    config, seen = make_config(*settings, folder="ended"), []
    owner, name, number, rounds = {
        "between two answers": (LocalGrid, "_deliver", 5 + 5 + 3, 1),  # 5 that ask for clients, then 5 a round
        "while it waits": (LocalGrid, "send_and_receive", 1 + 1 + 1, 1),
        "at the end of a round": (RunStore, "append", 2, 2),
    }[when]
    original = getattr(owner, name)

    def signalled(self, *arguments, **options):
        seen.append(arguments)
        if len(seen) == number:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(Interrupted) as caught:
        patched.setattr(owner, name, signalled)
        run(config)
    assert caught.value.signal == signal.SIGTERM and caught.value.folder == Path(config.run_dir)
    assert checkpoint.load_latest(Path(config.run_dir) / "checkpoints").round == rounds
    summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("interrupted", rounds)
    assert run(parse(json.loads(config.to_json()) | {"resume": config.run_dir})) == whole


def test_a_process_of_flower_ends_with_a_failure_that_says_how_to_go_on(make_config, monkeypatch):
    config = make_config("controller=fixed", folder="ended")
    signalled = iter([False, True])
    monkeypatch.setattr(RunStore, "append", lambda *_: next(signalled) and signal.raise_signal(signal.SIGINT))
    context = new_context(1, 1, {}, {"config": config.to_json()})
    with pytest.raises(RunFailedError) as caught:  # Flower waits for ever for a process that a signal ends otherwise
        server_app.app(LocalGrid(client_app.app, 1, dict(context.run_config)), context)
    going_on = f"go on by `flwr run` with the same overrides and resume={config.run_dir}"
    assert str(caught.value) == f"ended by SIGINT; {going_on}"


@pytest.mark.slow
def test_a_signal_ends_a_sweep_and_says_how_to_go_on(tmp_path):
    options = [*TINY.split()[:-2], "rounds=100000", "seed=0,1", "report=none", "run_dir='my sweep'"]
    process = start(tmp_path, "-m", *options)
    record = tmp_path / "my sweep" / "0" / "rounds.jsonl"
    while not (record.exists() and len(read_rows(record)) > 3):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1].decode()
    assert process.returncode == 143 and not (tmp_path / "my sweep" / "1").exists()
    assert said == f"fedbatch: interrupted; go on with fedbatch \"resume='{record.parent}'\"\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["server_optimizer=adam", "server_optimizer.lr=1e38", "rounds=1"],
            "parameters are not finite any more: training has diverged",
        ),
        (["server_optimizer.lr=1e30", "rounds=1"], "test_loss is nan: training has diverged"),
        (["server_optimizer.lr=1e30", "rounds=1", "evaluate_every_rounds=0"], "test_loss is nan"),
    ],
)
def test_divergence_in_the_last_round_is_a_failure(make_config, settings, said):
    config = make_config("controller=fixed", "executor=fused", *settings)
    with pytest.raises(RunFailedError, match=said):
        run(config)
    summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
    assert summary["status"] == "failed" and "training has diverged" in summary["error"]
    with pytest.raises(RunFailedError):  # and a resumed one does not pass for done
        run(parse(json.loads(config.to_json()) | {"resume": config.run_dir}))


def test_a_run_that_ends_between_two_evaluations_has_the_scores_of_its_last_parameters(make_config):
    early = ("target_metric=train_loss", "target_value=1e6", "evaluate_every_rounds=0", "controller=fixed", "rounds=9")
    config = make_config(*early, folder="early")
    run(config)
    summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
    config = make_config("controller=fixed", "rounds=1", folder="one")
    run(config)
    one = json.loads((Path(config.run_dir) / "summary.json").read_text())
    assert summary["rounds"] == 1
    assert [summary[n] for n in ("test_loss", "test_accuracy")] == [one[n] for n in ("test_loss", "test_accuracy")]
