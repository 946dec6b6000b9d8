import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedbatch.api import execute
from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError
from fedbatch.results.store import read_rows
from fedbatch.server import checkpoint
from fedbatch.setup import task


def run(config):
    task.load.cache_clear()
    execute(config)


OPTIMIZERS = {
    "sgd": ["server_optimizer.momentum=0.9"],
    "adam": ["server_optimizer=adam"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("controller", ["two_phase_switch", "adaptive"])
def test_four_rounds_are_two_and_a_checkpoint_and_two(make_config, optimizer, controller):
    settings = [
        *OPTIMIZERS[optimizer],
        f"controller={controller}",
        "noise_scale.halves=true",
        "controller.settle_rounds=1",
        "noise_scale.z=0.01",
    ]
    settings += (
        ["controller.up=1e-6", "controller.down=0"]
        if controller == "two_phase_switch"
        else ["controller.min_cohort_size=2", "controller.max_cohort_size=20", "controller.step=1.01"]
    )
    whole = make_config(*settings, "rounds=4", folder="whole")
    run(whole)
    part = make_config(*settings, "rounds=2", folder="part")
    run(part)
    resumed = make_config(*settings, "rounds=4", f"resume={part.run_dir}", folder="part")
    run(resumed)
    a, b = (Path(c.run_dir) for c in (whole, resumed))
    left, right = (checkpoint.load_latest(f / "checkpoints") for f in (a, b))
    assert torch.equal(left.params, right.params) and left.averages == right.averages
    assert left.control == right.control and left.switches == right.switches and len(left.switches) >= 1
    for x, y in zip(flatten(left.optimizer), flatten(right.optimizer), strict=True):
        assert torch.equal(torch.as_tensor(x), torch.as_tensor(y))
    rows_a, rows_b = read_rows(a / "rounds.jsonl"), read_rows(b / "rounds.jsonl")
    for x, y in zip(rows_a, rows_b, strict=True):
        same = [k for k in x if not k.endswith("_seconds") or k == "simulated_seconds"]
        assert all(x[k] == y[k] or x[k] != x[k] for k in same if not k.startswith("test_"))
    hashes = [json.loads((f / "summary.json").read_text())["params_sha256"] for f in (a, b)]
    assert hashes[0] == hashes[1]


CLOCKED = {
    "noise_scale_switch": ("controller.up=1e-6", "controller.down=0"),
    "adascale": ("controller.phase.cohort_size=8", "learning_rate.decay=linear"),
    "goodput": (
        *("controller.phases.middle.cohort_size=8", "controller.phases.large.cohort_size=8", "controller.budget=2000"),
        *("controller.cost=examples", "controller.settle_rounds=2", "learning_rate.decay=wsd"),
    ),
}
"""Controllers that keep numbers of earlier rounds: a test's window, a clock, a budget."""


@pytest.mark.parametrize("controller", CLOCKED)
def test_what_a_controller_remembers_goes_on_from_a_checkpoint(make_config, controller):
    settings = (
        f"controller={controller}",
        *CLOCKED[controller],
        "executor=fused",
        "rounds=30",
        "checkpoint_every_rounds=7",
    )
    run(config := make_config(*settings))
    folder = Path(config.run_dir)
    whole, before = checkpoint.load_latest(folder / "checkpoints"), (folder / "summary.json").read_text()
    saved = sorted((folder / "checkpoints").glob("round-*.ckpt"))
    saved[-1].unlink()  # as if it had been killed
    kept = checkpoint.load_latest(folder / "checkpoints")
    assert 0 < kept.round < whole.round and kept.control.memory
    run(make_config(*settings, f"resume={folder}"))
    again = checkpoint.load_latest(folder / "checkpoints")
    assert again.control == whole.control and again.round == whole.round and torch.equal(again.params, whole.params)
    assert json.loads(before)["phase_switches"] == json.loads((folder / "summary.json").read_text())["phase_switches"]


def flatten(value):
    if isinstance(value, dict):
        return [leaf for k in sorted(value, key=str) for leaf in flatten(value[k])]
    if isinstance(value, list | tuple):
        return [leaf for v in value for leaf in flatten(v)]
    return [value] if isinstance(value, torch.Tensor | int | float) else []


def test_last_two_are_kept_and_a_damaged_one_is_passed_over(make_config):
    config = make_config("checkpoint_every_rounds=1")
    run(config)
    folder = Path(config.run_dir) / "checkpoints"
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == ["round-00000003.ckpt", "round-00000004.ckpt"]
    content = bytearray(files[1].read_bytes())
    for damaged in (content[: len(content) // 2], content[:100] + b"\xff" + content[101:], b""):
        files[1].write_bytes(damaged)
        with pytest.warns(UserWarning, match="round-00000004.ckpt is damaged"):
            assert checkpoint.load_latest(folder).round == 3
    files[0].write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="start the run anew"):
        checkpoint.load_latest(folder)


def test_a_checkpoint_runs_no_code_when_loaded(tmp_path):
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    content = pickle.dumps(Evil(), protocol=2)
    (tmp_path / "round-00000001.ckpt").write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_latest(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_resumed_record_drops_rows_after_the_checkpoint(make_config):
    config = make_config("rounds=3", "checkpoint_every_rounds=1")
    run(config)
    folder = Path(config.run_dir)
    (folder / "checkpoints" / "round-00000003.ckpt").unlink()
    with open(folder / "rounds.jsonl", "a") as file:
        file.write('{"round": 3, "cut off by a ki')
    run(parse(json.loads(config.to_json()) | {"resume": config.run_dir, "rounds": 5}))
    assert [row["round"] for row in read_rows(folder / "rounds.jsonl")] == [0, 1, 2, 3, 4]


def rewritten(path, change, header=None):
    """The checkpoint with other content and a checksum that holds."""
    _, line, content = path.read_bytes().split(b"\n", 2)
    values = torch.load(io.BytesIO(content), weights_only=True)
    change(values)
    buffer = io.BytesIO()
    torch.save(values, buffer)
    content = json.dumps(json.loads(line) | (header or {})).encode() + b"\n" + buffer.getvalue()
    path.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


CONTENT = {
    "lacks params": (lambda v: v.pop("params"), None),
    "has later, which this fedbatch does not know": (lambda v: v.update(later=1), None),
    "control has later": (lambda v: v["control"].update(later=1), None),
    "control lacks phase": (lambda v: v["control"].pop("phase"), None),
    "its noise is list": (lambda v: v["averages"].update(noise=[]), None),
    "round in its state is str": (lambda v: v.update(round="3"), None),
    "params in its state is list": (lambda v: v.update(params=[0.0]), None),
    "ledger": (lambda v: v["ledger"].update(releases=[{"round": 1}]), None),
    r"newer fedbatch \(format 3\); update": (lambda v: None, {"version": 3}),
    "not what fedbatch writes": (lambda v: None, {"version": "x"}),
}


@pytest.mark.parametrize("said", CONTENT)
def test_a_checkpoint_of_another_version_is_one_line(make_config, said):
    config = make_config("controller=fixed", "rounds=1")
    run(config)
    folder = Path(config.run_dir) / "checkpoints"
    rewritten(folder / "round-00000001.ckpt", *CONTENT[said])
    with pytest.raises(ConfigError, match=f"round-00000001.ckpt cannot be read: .*{said}") as caught:
        checkpoint.load_latest(folder)
    assert "\n" not in str(caught.value)


def test_what_an_older_checkpoint_lacks_has_its_default(make_config):
    config = make_config("controller=fixed", "rounds=1")
    run(config)
    path = Path(config.run_dir) / "checkpoints" / "round-00000001.ckpt"
    new = ("labels", "answered", "executors", "clip_norm", "switches", "ledger")
    rewritten(path, lambda values: [values.pop(name) for name in new])
    loaded = checkpoint.load_latest(path.parent)
    assert loaded.answered == loaded.switches == () and not loaded.ledger.releases and loaded.round == 1


def test_the_checkpoint_just_written_is_never_the_one_that_goes(make_config):
    config = make_config("controller=fixed", "rounds=1")
    run(config)
    folder = Path(config.run_dir) / "checkpoints"
    saved, header = checkpoint.load(folder)
    for number in (7, 8, 9):  # damaged, or the run would have gone on from there
        checkpoint.save(replace(saved, round=number), folder, header)
    for number in (2, 3, 4):
        checkpoint.save(replace(saved, round=number), folder, header)
        assert (folder / f"round-{number:08d}.ckpt").exists()
    assert len(list(folder.iterdir())) == 4
