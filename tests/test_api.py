"""Runs from Python: what the command line would give, objects of one's own, trained models and their files."""

import functools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import fedbatch
from fedbatch import client_app
from fedbatch.core.errors import ConfigError
from fedbatch.data import Dataset
from fedbatch.results.identity import read
from fedbatch.runtime.local import LocalGrid
from tests import whole_runs

TINY = "dataset=digits population=20 cohort_size=4 client_batch_size=4 controller=fixed executor=fused".split()
SMALL = {"population": 10, "cohort_size": 5, "client_batch_size": 8, "controller": "fixed", "rounds": 3}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gaussians(shift=0.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32) + np.float32(shift)
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    return Dataset("mine", x[:200], y[:200], x[200:], y[200:], 3)


def net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


class Shaped(nn.Module):
    def __init__(self, num_classes, width=3):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, width), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.net(x)


def test_gives_what_the_command_line_gives(tmp_path):
    assert whole_runs.run([*TINY, "rounds=3", "report=none", "run_dir=there"]) == 0
    result = fedbatch.run(*TINY, rounds=3)
    assert result.summary["params_sha256"] == json.loads(Path("there/summary.json").read_text())["params_sha256"]
    assert result.folder.parent == Path("runs") and result.rounds["round"].to_list() == [0, 1, 2]
    named = fedbatch.run(*TINY[1:], dataset="digits", rounds=3, run_dir=tmp_path / "named")
    assert named.summary["params_sha256"] == result.summary["params_sha256"]
    assert named.folder == tmp_path / "named"


def test_the_model_is_the_one_of_the_last_checkpoint():
    result = fedbatch.run(*TINY, rounds=3)
    scores = fedbatch.evaluate(result.folder)
    assert scores["test_accuracy"] == result.summary["test_accuracy"] and not result.model.training
    digits = fedbatch.data.digits()
    with torch.no_grad():
        predicted = result.model(torch.from_numpy(digits.test_x)).argmax(dim=1).numpy()
    assert (predicted == digits.test_y).mean() == pytest.approx(scores["test_accuracy"])


@pytest.mark.parametrize(
    "model",
    [net, net(), Shaped, functools.partial(Shaped, width=2), lambda num_classes: nn.Linear(5, num_classes)],
    ids=["function", "module", "class", "partial", "lambda"],
)
def test_objects_of_ones_own(model):
    optimizer = functools.partial(torch.optim.Adam, lr=0.01)
    small = {**SMALL, "executor": "loop"}  # auto measures, and may take another on a busy machine: other last digits
    result = fedbatch.run(
        dataset=gaussians(), model=model, loss=nn.functional.cross_entropy, server_optimizer=optimizer, **small
    )
    assert result.summary["rounds"] == 3
    again = fedbatch.run(
        dataset=gaussians, model=model, loss=nn.CrossEntropyLoss(), server_optimizer=optimizer, **small
    )
    assert again.summary["params_sha256"] == result.summary["params_sha256"]


def test_a_given_module_is_where_training_starts_and_stays_as_it_was():
    module = net()
    before = [p.detach().clone() for p in module.parameters()]
    result = fedbatch.run(
        dataset=gaussians(),
        model=module,
        loss=nn.functional.cross_entropy,
        **SMALL | {"server_optimizer": {"lr": 1e-30}},
    )
    assert all(torch.equal(a, b) for a, b in zip(before, result.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_run_goes_on_with_the_same_objects_only():
    given = {"dataset": gaussians(), "model": net, "loss": nn.functional.cross_entropy}
    whole = fedbatch.run(**given, **SMALL | {"rounds": 6})
    half = fedbatch.run(**given, **SMALL)
    on = fedbatch.run(resume=half.folder, rounds=6, **given)
    assert (
        on.summary["params_sha256"] == whole.summary["params_sha256"] and read(on.folder).run == read(half.folder).run
    )
    with pytest.raises(ConfigError, match="loss: .*cross_entropy was given to another Python process; give it again"):
        fedbatch.run(resume=half.folder, rounds=7, dataset=given["dataset"], model=net)
    with pytest.raises(ConfigError, match="the data have changed since this run started"):
        fedbatch.run(resume=half.folder, rounds=7, **given | {"dataset": gaussians(1.0)})


def test_any_grid_will_do(make_config):
    config = make_config("nodes=2", "controller=fixed", "executor=fused")
    grid = LocalGrid(client_app.app, 2, {"config": config.to_json()})
    result = fedbatch.run(*TINY, "model.width=8", grid=grid, nodes=2, rounds=4)
    here = fedbatch.run(*TINY, "model.width=8", nodes=2, rounds=4)
    assert result.summary["params_sha256"] == here.summary["params_sha256"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"ronds": 3}, "unknown key 'ronds'; did you mean rounds"),
        ({"model": "mpl"}, "model=mpl does not exist; choose from"),
        ({"experiment": "nope"}, "experiment=nope does not exist; choose from"),
        ({"rounds": 0}, "rounds must be in"),
        ({"resume": "nowhere"}, "resume: nowhere has no config.yaml; give the folder of an earlier run"),
        ({"dataset": 3}, "dataset"),
        ({"model": lambda: 3}, "model: .* must give an nn.Module"),
        ({"server_optimizer": torch.optim.Adam}, "server_optimizer: lr must be set"),
    ],
)
def test_what_is_wrong_is_one_line(values, line):
    with pytest.raises(ConfigError, match=line) as caught:
        fedbatch.run(*TINY, **{"rounds": 2} | values)
    assert "\n" not in str(caught.value)


def test_says_nothing_unless_asked(capsys):
    fedbatch.run(*TINY, rounds=2)
    assert capsys.readouterr().out == ""
    fedbatch.run(*TINY, rounds=2, progress=True)
    assert "round     2/2" in capsys.readouterr().out
    assert logging.getLogger("fedbatch").level == logging.NOTSET


def test_models_as_files(tmp_path):
    result = fedbatch.run(*TINY, rounds=2)
    fedbatch.export(result.folder, tmp_path / "m.safetensors")
    fedbatch.export(result.folder, tmp_path / "m.pt")
    state = result.model.state_dict()
    for loaded in (load_file(tmp_path / "m.safetensors"), torch.load(tmp_path / "m.pt")):
        assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    with pytest.raises(ConfigError, match=r"must end with .safetensors or .pt"):
        fedbatch.export(result.folder, tmp_path / "m.onnx")


def test_scores_on_another_set():
    result = fedbatch.run(*TINY, rounds=2)
    scores = fedbatch.evaluate(result.folder, "metrics=calibration")
    assert scores["test_accuracy"] == result.summary["test_accuracy"] and 0 <= scores["test_ece"] <= 1
    with pytest.raises(
        ConfigError, match=r"dataset: fashion_mini has inputs \(1, 28, 28\) and 10 classes, and the model"
    ):
        fedbatch.evaluate(result.folder, "dataset=fashion_mini")
    with pytest.raises(ConfigError, match="only dataset and metrics can be chosen anew"):
        fedbatch.evaluate(result.folder, "rounds=3")


def test_a_broken_off_run_has_a_model(tmp_path):
    whole_runs.run([*TINY, "rounds=3", "report=none", "run_dir=cut", "faults=some", "faults.not_finite=1"])
    assert isinstance(fedbatch.load_model("cut"), nn.Module)
    with pytest.raises(ConfigError, match="no config.yaml"):
        fedbatch.load_model("nowhere")


def test_the_line_of_the_documentation(tmp_path):
    code = "import fedbatch; print(fedbatch.run(rounds=2, dataset='digits', population=20, controller='fixed', "
    code += "cohort_size=4).summary['test_accuracy'])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert 0 <= float(done.stdout) <= 1 and done.stderr == ""


def test_the_public_names_are_there():
    assert {"run", "load_model", "evaluate", "export", "load_runs", "load_rounds", "NoiseScale"} <= set(dir(fedbatch))
    assert all(getattr(fedbatch, name) is not None for name in fedbatch.__all__)
