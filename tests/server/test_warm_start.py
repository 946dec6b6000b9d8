"""Runs that start from parameters that are there already."""

from pathlib import Path

import pytest
import torch

from fedbatch.api import execute
from fedbatch.core.errors import ConfigError
from fedbatch.results.store import read_rows
from fedbatch.server.checkpoint import load_latest
from fedbatch.trained import evaluate, export, load_model

STILL = "server_optimizer.lr=1e-30", "rounds=1"


def run(config):
    execute(config)
    return Path(config.run_dir)


@pytest.fixture
def earlier(make_config):
    return run(make_config("rounds=20", folder="earlier"))


@pytest.mark.parametrize("form", ["folder", ".safetensors", ".pt"])
def test_the_first_round_starts_where_the_other_run_ended(make_config, earlier, tmp_path, form):
    source = earlier
    if form != "folder":
        if form == ".safetensors":
            pytest.importorskip("safetensors")
        export(earlier, source := tmp_path / f"start{form}")
    folder = run(make_config(*STILL, f"start_from={source}"))
    state = load_latest(folder / "checkpoints")
    assert torch.equal(state.params, load_latest(earlier / "checkpoints").params)
    assert read_rows(folder / "rounds.jsonl")[0]["test_accuracy"] == evaluate(earlier)["test_accuracy"]


def test_averaged_parameters_are_taken_where_there_are_any(make_config):
    averaged = run(make_config("rounds=10", "averaging=polynomial", folder="averaged"))
    folder = run(make_config(*STILL, f"start_from={averaged}"))
    saved = load_latest(averaged / "checkpoints")
    assert not torch.equal(saved.params, saved.average["params"])
    assert torch.equal(load_latest(folder / "checkpoints").params, saved.average["params"])


def test_buffers_that_training_changes_come_too(make_config):
    options = "model=cnn", "model.norm=batch", "model.channels=4", "model.hidden=8", "dataset=digits"
    other = run(make_config(*options, "rounds=4", folder="other"))
    folder = run(make_config(*options, *STILL, f"start_from={other}", "client_batch_size=8"))
    before, after = (load_model(each).state_dict() for each in (other, folder))
    assert any("running_mean" in name and float(value.abs().sum()) > 0 for name, value in before.items())
    fresh = run(make_config(*options, *STILL, "client_batch_size=8", folder="fresh"))
    ahead = [name for name in before if "running_var" in name]
    for name in ahead:  # one round moves them from where the other run left them, not from 1
        new = load_model(fresh).state_dict()[name]
        assert (after[name] - before[name]).norm() < (new - before[name]).norm()


def test_a_new_head_on_an_old_body(make_config, earlier, tmp_path):
    export(earlier, source := tmp_path / "start.pt")
    names = list(torch.load(source, weights_only=True))
    head = [name for name in names if name.startswith(names[-1].split(".")[0])]
    folder = run(make_config(*STILL, f"start_from={source}", f"start_skip=[{','.join(head)}]"))
    fresh = run(make_config(*STILL, folder="fresh"))
    old, new, own = (load_model(each).state_dict() for each in (earlier, fresh, folder))
    assert all(torch.equal(own[name], (new if name in head else old)[name]) for name in own)
    assert not torch.equal(old[head[0]], new[head[0]])


def test_a_run_goes_on_though_the_file_is_gone(make_config, earlier, tmp_path):
    export(earlier, source := tmp_path / "start.pt")
    config = make_config("rounds=2", f"start_from={source}")
    folder = run(config)
    source.unlink()
    from dataclasses import replace

    execute(replace(config, rounds=4, resume=str(folder)))
    assert len(read_rows(folder / "rounds.jsonl")) == 4


def wrong(tmp_path, **changes):
    saved = {"0.weight": torch.zeros(2)} | changes
    torch.save(saved, tmp_path / "wrong.pt")
    return tmp_path / "wrong.pt"


def exported(earlier, tmp_path, change):
    export(earlier, path := tmp_path / "changed.pt")
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    return path


CASES = {
    "lacks": (lambda saved: saved.pop(list(saved)[-1]), r"lacks .*start_skip=\["),
    "more": (lambda saved: saved.update(extra=torch.zeros(1)), "has extra, which the model has not"),
    "shape": (lambda saved: saved.update({next(iter(saved)): torch.zeros(3)}), r"has shape \(3,\) in .* start_skip"),
    "nan": (lambda saved: saved[next(iter(saved))].fill_(float("nan")), "not finite"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_does_not_fit_is_one_line(make_config, earlier, tmp_path, case):
    change, said = CASES[case]
    path = exported(earlier, tmp_path, change)
    with pytest.raises(ConfigError, match=said):
        run(make_config(f"start_from={path}"))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("nowhere.pt", "there is no"), ("nowhere.txt", "must be a run folder"), ("nowhere", "must be a run folder")],
)
def test_a_path_that_is_nothing_is_one_line(make_config, text, said):
    with pytest.raises(ConfigError, match=said):
        run(make_config(f"start_from={text}"))


def test_code_in_a_file_is_not_run(make_config, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "boom", "x"))

    torch.save({"a": Bomb()}, path := tmp_path / "bomb.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        run(make_config(f"start_from={path}"))
    assert not (tmp_path / "boom").exists()


def test_another_model_is_refused(make_config, earlier):
    with pytest.raises(ConfigError, match="fedbatch export"):
        run(make_config(f"start_from={earlier}", "model.width=9"))
