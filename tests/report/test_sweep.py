"""What a sweep says in a terminal while it goes; counts are by hand."""

import io
import json
import os

import pytest
from omegaconf import OmegaConf

from fedbatch.report.sweep import PLAN, Numbered, SweepInTerminal, choices, swept
from fedbatch.results.choices import read_choices, write_choices


def config(*overrides, params=None, launcher="hydra._internal.core_plugins.basic_launcher.BasicLauncher", **sweeper):
    return OmegaConf.create(
        {
            "hydra": {
                "overrides": {"task": list(overrides)},
                "sweeper": {"params": params, **sweeper},
                "launcher": {"_target_": launcher},
                "job": {"num": 2},
            }
        }
    )


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch):
    monkeypatch.setenv(PLAN, "{}")
    monkeypatch.delenv(PLAN)


@pytest.mark.parametrize(
    ("overrides", "params", "keys"),
    [
        (["seed=0,1,2", "controller=fixed,goodput", "rounds=5"], None, {"seed": 3, "controller": 2}),
        (["seed=range(0,4)", "+x=choice(1,2)"], None, {"seed": 4, "x": 2}),
        (["seed=7"], {"seed": "0,1", "model.width": "8,16"}, {"model.width": 2}),
        (["lr=interval(0,1)"], None, {"lr": 0}),
        (["note='a,b'"], None, {}),
    ],
)
def test_keys_that_are_swept_are_counted(overrides, params, keys):
    assert swept(config(*overrides, params=params)) == keys


def test_each_run_says_which_it_is_and_of_how_many(capsys):
    callback = SweepInTerminal()
    callback.on_job_start(config("seed=1"))
    assert capsys.readouterr().out == ""  # no sweep
    callback.on_multirun_start(config("seed=0,1,2", "controller=fixed,goodput", "rounds=5"))
    callback.on_job_start(config("seed=1", "controller=fixed", "rounds=5"))
    assert capsys.readouterr().out == "run 3 of 6: seed=1 controller=fixed\n"
    callback.on_multirun_start(config(params={"lr": "interval(0,1)"}, n_trials=9))
    callback.on_job_start(config("lr=0.25"))
    assert capsys.readouterr().out == "run 3 of 9: lr=0.25\n"


def test_lines_of_runs_side_by_side_have_their_number(capsys, monkeypatch):
    callback, out = SweepInTerminal(), io.StringIO()
    callback.on_multirun_start(config("seed=0,1", launcher="some.ParallelLauncher"))
    monkeypatch.setattr("sys.stdout", Numbered(out, 1))  # of the run before, in the same process
    callback.on_job_start(config("seed=1"))
    print("one\ntwo", end="")
    print(" more")
    assert out.getvalue() == "1: run 3 of 2: seed=1\n3: one\n3: two more\n"


def test_choices_come_back_and_a_damaged_file_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv(PLAN, json.dumps({"keys": ["seed", "model.width"]}))
    own = choices(["seed=1", "+model.width=8", "rounds=5"])
    assert own == {"seed": "1", "model.width": "8"}
    write_choices(tmp_path / "0", own)
    assert read_choices(tmp_path / "0") == own
    (tmp_path / "0" / "sweep.json").write_text("[")
    assert read_choices(tmp_path / "0") == {} == read_choices(tmp_path)
    os.environ.pop(PLAN)
    assert choices(["seed=1"]) == {}
