import json
from pathlib import Path

import pytest
import torch

from fedbatch import client_app, server_app, state, task
from fedbatch.config import parse
from fedbatch.results.store import read_rows
from fedbatch.runtime.local import run_locally


def run(config):
    task.load.cache_clear()
    run_locally(server_app.app, client_app.app, config.nodes, {"config": config.to_json()})


OPTIMIZERS = {
    "sgd": ["server_optimizer.momentum=0.9"],
    "adam": ["server_optimizer=adam"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("controller", ["noise_scale_switch", "adaptive"])
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
        if controller == "noise_scale_switch"
        else ["controller.min_cohort_size=2", "controller.max_cohort_size=20", "controller.step=1.01"]
    )
    whole = make_config(*settings, "rounds=4", folder="whole")
    run(whole)
    part = make_config(*settings, "rounds=2", folder="part")
    run(part)
    resumed = make_config(*settings, "rounds=4", f"resume={part.run_dir}", folder="part")
    run(resumed)
    a, b = (Path(c.run_dir) for c in (whole, resumed))
    left, right = (state.load_latest(f / "checkpoints") for f in (a, b))
    assert torch.equal(left.params, right.params) and left.noise == right.noise and left.within == right.within
    assert left.control == right.control and left.switches == right.switches and len(left.switches) >= 1
    for x, y in zip(flatten(left.optimizer), flatten(right.optimizer), strict=True):
        assert torch.equal(torch.as_tensor(x), torch.as_tensor(y))
    rows_a, rows_b = read_rows(a / "rounds.jsonl"), read_rows(b / "rounds.jsonl")
    for x, y in zip(rows_a, rows_b, strict=True):
        same = [k for k in x if not k.endswith("_seconds") or k == "simulated_seconds"]
        assert all(x[k] == y[k] or x[k] != x[k] for k in same if not k.startswith("test_"))
    hashes = [json.loads((f / "summary.json").read_text())["params_sha256"] for f in (a, b)]
    assert hashes[0] == hashes[1]


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
            assert state.load_latest(folder).round == 3
    files[0].write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="start the run anew"):
        state.load_latest(folder)


def test_a_checkpoint_runs_no_code_when_loaded(tmp_path):
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    content = pickle.dumps(Evil(), protocol=2)
    (tmp_path / "round-00000001.ckpt").write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    with pytest.raises(pickle.UnpicklingError):
        state.load_latest(tmp_path)
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
