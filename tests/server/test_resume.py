"""A run is its config, its data and its code; a folder holds one run."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError
from fedbatch.server import checkpoint
from fedbatch.setup import task
from tests.conftest import run


def on(config, **changed):
    """The config with which a run goes on."""
    return parse(json.loads(config.to_json()) | {"resume": config.run_dir} | changed)


@pytest.fixture
def fresh():
    def clear():
        task.forget()

    return clear


OWN_DATA = """
import numpy as np
from fedbatch.data.dataset import Dataset

def table():
    x, y = (np.load({!r})[name] for name in "xy")
    return Dataset("own", x[:100], y[:100], x[100:], y[100:], 2)
"""


def test_other_data_are_refused(make_config, tmp_path, monkeypatch, fresh):
    monkeypatch.syspath_prepend(tmp_path)
    rng, y = np.random.default_rng(0), np.arange(120) % 2
    x, path = rng.normal(size=(120, 2)).astype(np.float32), tmp_path / "own.npz"
    (tmp_path / "own_resumed_data.py").write_text(OWN_DATA.format(str(path)))
    small = ("model=logistic", "population=6", "cohort_size=6", "client_batch_size=4", "controller=fixed")
    config = replace(make_config(*small, "rounds=2", base=()), dataset={"_target_": "own_resumed_data.table"})
    np.savez(path, x=x, y=y)
    run(config)
    other = {"labels": (x, 1 - y), "one value": (x + (np.arange(240) == 239).reshape(120, 2), y), "order": (x[::-1], y)}
    for changed, labels in other.values():
        np.savez(path, x=changed.astype(np.float32), y=labels)
        fresh()
        with pytest.raises(ConfigError, match="resume: the data have changed since this run started"):
            run(on(config, rounds=4))
    np.savez(path, x=x, y=y)
    fresh()
    assert run(on(config, rounds=4))[1]["rounds"] == 4


def test_other_code_is_refused(make_config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / "own_resumed_loss.py"
    code = "from torch.nn import functional\n\nclass Loss:\n    def __call__(self, x, y):\n"
    own.write_text(code + "        return functional.cross_entropy(x, y)\n")
    config = make_config("controller=fixed", "executor=loop", "rounds=2")
    config = replace(config, loss={"_target_": "own_resumed_loss.Loss"})
    run(config)
    own.write_text(code + "        return 2 * functional.cross_entropy(x, y)\n")
    with pytest.raises(ConfigError, match="the code of own_resumed_loss has changed since this run started"):
        run(on(config, rounds=4))


def test_another_config_is_refused_by_the_names_of_its_keys(make_config):
    config = make_config("controller=fixed", "rounds=2")
    run(config)
    with pytest.raises(ConfigError, match=r"resume: seed, server_optimizer\.lr cannot change"):
        run(on(config, seed=3, server_optimizer=config.server_optimizer | {"lr": 0.5}))
    path = Path(config.run_dir) / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(ConfigError, match=r"config\.yaml has changed since this run started"):
        run(on(config, seed=1))


def test_a_used_folder_is_refused_unless_it_is_to_be_overwritten(make_config):
    config = make_config("controller=fixed", "rounds=3", "checkpoint_every_rounds=1")
    run(config)
    folder = Path(config.run_dir)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = replace(config, seed=1)
    with pytest.raises(ConfigError, match=r"has a run in it \(finished, 3 rounds\).*overwrite=true"):
        run(other)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoints" / "best.pt").write_text("mine too")
    first = json.loads((folder / "run.json").read_text())["run"]
    _, summary, _ = run(replace(other, overwrite=True, rounds=2))
    assert summary["seed"] == 1 and summary["rounds"] == 2 and summary["run_id"] != first
    assert (folder / "notes.txt").exists() and (folder / "checkpoints" / "best.pt").exists()
    names = sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt"))
    assert names == ["round-00000001.ckpt", "round-00000002.ckpt"]


def test_checkpoints_of_another_run_are_neither_loaded_nor_deleted(make_config):
    config = make_config("controller=fixed", "rounds=2", "checkpoint_every_rounds=1")
    _, summary, _ = run(config)
    folder = Path(config.run_dir) / "checkpoints"
    later, header = checkpoint.load(folder)
    checkpoint.save(replace(later, round=9), folder, header | {"run": "another"})
    assert checkpoint.load_latest(folder).round == 9 and checkpoint.load_latest(folder, header["run"]).round == 2
    _, resumed, _ = run(on(config, rounds=4))
    assert resumed["rounds"] == 4 and resumed["run_id"] == summary["run_id"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["round-00000003.ckpt", "round-00000004.ckpt", "round-00000009.ckpt"]


def as_of_an_earlier_fedbatch(folder):
    """The folder without run.json, the keys and the seals of today, and with checkpoints of version 1."""
    (folder / "run.json").unlink()
    lines = (folder / "rounds.jsonl").read_text()
    (folder / "rounds.jsonl").write_text(re.sub(r', "seal": "[0-9a-f]{8}"', "", lines))
    values = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if k != "overwrite"}))
    for path in (folder / "checkpoints").iterdir():
        _, _, content = path.read_bytes().split(b"\n", 2)
        path.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def test_a_folder_of_an_earlier_fedbatch_goes_on(make_config, caplog):
    whole = run(make_config("controller=fixed", "rounds=4", folder="whole"))[2]
    config = make_config("controller=fixed", "rounds=2", folder="old")
    run(config)
    as_of_an_earlier_fedbatch(Path(config.run_dir))
    _, summary, last = run(on(config, rounds=4))
    assert "is of an earlier fedbatch" in caplog.text and summary["run_id"]
    assert (last.params == whole.params).all()
    caplog.clear()
    assert run(on(config, rounds=5))[1]["run_id"] == summary["run_id"] and not caplog.records


def test_a_lost_run_json_is_made_up_for_by_the_checkpoints(make_config):
    config = make_config("controller=fixed", "rounds=2")
    _, summary, _ = run(config)
    (Path(config.run_dir) / "run.json").unlink()
    assert run(on(config, rounds=3))[1]["run_id"] == summary["run_id"]
    assert (Path(config.run_dir) / "run.json").exists()


def test_stale_answers_are_stale_in_a_resumed_run_too(make_config):
    faults = ("faults=some", "faults.dropout=0", "faults.stale=0.5", "nodes=5", "controller=fixed", "cohort_size=20")
    rows, summary, _ = run(make_config(*faults, "rounds=4", "executor=loop", folder="whole"))
    part = make_config(*faults, "rounds=2", "executor=loop", folder="part")
    run(part)
    resumed, again, _ = run(on(part, rounds=4))
    assert [row["rejected_replies"] for row in rows] == [row["rejected_replies"] for row in resumed] != [0] * 4
    assert summary["params_sha256"] == again["params_sha256"]


def test_a_private_run_can_be_resumed_before_its_first_round_is_done(make_config, monkeypatch):
    settings = ("privacy=client_central", "controller=fixed", "executor=fused", "privacy.target_epsilon=null")
    settings = (*settings, "privacy.noise_multiplier=1.0", "rounds=2")
    whole = run(make_config(*settings, folder="whole"))[1]
    config = make_config(*settings, folder="killed")
    with monkeypatch.context() as killed:
        killed.setattr("fedbatch.server.collect_private.make_plans", lambda *_: 1 / 0)  # just after the first charge
        with pytest.raises(ZeroDivisionError):
            run(config)
    assert len((Path(config.run_dir) / "ledger.jsonl").read_text().splitlines()) == 1
    done = run(on(config))[1]
    assert done["params_sha256"] == whole["params_sha256"] and done["epsilon"] == whole["epsilon"]
