"""Rounds that are asked group by group: what they measure, that they change nothing else, and what is refused."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fedbatch.api import execute
from fedbatch.config.compose import config_dir
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import mlp
from fedbatch.results.store import read_rows
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.optimizer import ServerOptimizer

OPTIMIZERS = sorted(path.stem for path in (Path(config_dir()) / "server_optimizer").glob("*.yaml"))
GROUPS = ("controller=fixed", "cohort_size=8", "noise_scale.groups=4", "noise_scale.every=2")
COLUMNS = ("gain_2x", "b_half", "b_l2", "b_l1", "b_nuclear")


def run(config):
    execute(config)
    folder = Path(config.run_dir)
    return read_rows(folder / "rounds.jsonl"), load_latest(folder / "checkpoints")


def node_of(name):
    return OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / "server_optimizer" / f"{name}.yaml"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_direction_is_the_step_of_an_optimizer_that_has_forgotten(name):
    torch.manual_seed(0)
    node = node_of(name)
    model = FlatModel(mlp((5,), 3, width=4, depth=1).double())
    optimizer = ServerOptimizer(model, node)
    for _ in range(3):
        optimizer.step(torch.randn_like(model.params), 0.01)
    before, state = model.params.clone(), copy.deepcopy(optimizer.state_dict())
    direction, gradient = optimizer.direction(), torch.randn_like(model.params)
    steps = [direction(gradient) for _ in range(2)]
    assert torch.equal(*steps) and torch.equal(model.params, before)
    assert str(optimizer.state_dict()) == str(state)
    for length in (1.0, 3.0):  # the same optimizer with its memory wiped, on a model of its own
        wiped = {key: 0.0 for key in ("momentum", "weight_decay", "dampening") if key in node}
        wiped |= {"betas": [0.0, node["betas"][1]]} if "betas" in node else {}
        wiped |= {"nesterov": False} if "nesterov" in node else {}
        other = FlatModel(mlp((5,), 3, width=4, depth=1).double())
        other.params.copy_(before)
        again = ServerOptimizer(other, {**node, **wiped})
        again.load_state_dict(copy.deepcopy(state))
        for group in again._optimizer.param_groups:
            group.update({key: tuple(v) if isinstance(v, list) else v for key, v in wiped.items() if key in group})
        again.step(length * gradient, 1.0)
        torch.testing.assert_close(before - other.params, direction(length * gradient), rtol=1e-6, atol=1e-9)


def test_sgd_goes_along_the_gradient():
    model = FlatModel(torch.nn.Linear(5, 3))
    optimizer = ServerOptimizer(model, node_of("sgd"))
    optimizer.step(torch.randn_like(model.params), 0.1)
    gradient = torch.randn(18, dtype=torch.float64)
    torch.testing.assert_close(optimizer.direction()(gradient), gradient)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_run_is_the_same_to_rounding(make_config, tmp_path, nodes):
    settings = (*GROUPS, f"nodes={nodes}", "rounds=6")
    rows, state = run(make_config(*settings, "noise_scale.layers=true", folder="groups"))
    plain, other = run(make_config(*settings, "noise_scale.groups=0", folder="plain"))
    assert (state.params - other.params).norm() < 1e-5 * other.params.norm()
    for ours, theirs in zip(rows, plain, strict=True):
        for name in ("noise_scale", "train_loss", "examples", "bytes_up", "simulated_seconds", "cohort_size"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    assert not any(name in row for row in plain for name in COLUMNS)
    assert [all(name in row for name in COLUMNS) for row in rows] == [False, True, True, True, True, True]
    layers = json.loads((tmp_path / "groups" / "summary.json").read_text())["layers"]
    assert len(rows[-1]["layer_noise_scales"]) == len(layers) == 2  # an mlp of two layers
    assert state.averages.gain.count == 3 and state.averages.gain.size == 8


def test_groups_and_clients_agree_on_the_noise_scale_of_sgd(make_config):
    """The permanent self-check: three ways to the same number from the same rounds."""
    settings = ("controller=fixed", "cohort_size=16", "client_batch_size=8", "noise_scale.groups=16")
    rows, _ = run(
        make_config(*settings, "noise_scale.every=1", "noise_scale.decay=0.99", "rounds=60", "model.width=32")
    )
    last = rows[-1]
    assert last["b_l2"] == pytest.approx(last["noise_scale"], rel=0.15)
    assert last["b_half"] == pytest.approx(last["noise_scale"], rel=0.15)
    factor = (1 + last["noise_scale"] / 128) / (1 + last["noise_scale"] / 256)
    assert last["gain_2x"] == pytest.approx(factor, rel=0.05)


def test_local_steps_are_measured_in_clients(make_config):
    rows, state = run(make_config(*GROUPS, "client_work=local_sgd", "rounds=4", "server_optimizer.lr=1"))
    assert rows[-1]["noise_scale_unit"] == "clients" and state.averages.gain.size == 2
    assert np.isfinite(rows[-1]["b_l1"])


def test_a_group_that_lost_a_client_is_smaller(make_config):
    settings = (*GROUPS, "nodes=8", "cohort_size=16", "noise_scale.every=1", "rounds=8", "faults=some")
    rows, state = run(make_config(*settings, "faults.dropout=0.3"))
    assert any(row["rejected_replies"] for row in rows[1:]) and state.averages.gain.count > 4
    assert 0.5 * 16 < state.averages.gain.size < 16


def test_resumes_bit_for_bit(make_config):
    _, whole = run(make_config(*GROUPS, "server_optimizer=adam", "rounds=6", folder="whole"))
    part = make_config(*GROUPS, "server_optimizer=adam", "rounds=3", folder="part")
    run(part)
    _, resumed = run(make_config(*GROUPS, "server_optimizer=adam", "rounds=6", f"resume={part.run_dir}", folder="part"))
    assert torch.equal(whole.params, resumed.params) and whole.averages == resumed.averages
    assert whole.averages.gain.count == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["noise_scale.groups=6"], "noise_scale.groups must be 0 for none, or 4, 8, 16"),
        (["noise_scale.groups=2"], "noise_scale.groups must be 0 for none, or 4, 8, 16"),
        (["noise_scale.groups=8"], r"noise_scale.groups \(8\) is larger than the cohort of phase fixed \(4\)"),
        (["noise_scale.every=0"], "noise_scale.every must be in"),
        (["noise_scale.layers=true"], "set noise_scale.groups=8"),
        (["noise_scale.groups=4", "privacy=client_central"], "no sums of groups; set noise_scale.groups=0"),
        (["noise_scale.groups=4", "privacy=example_local"], "no sums of groups; set noise_scale.groups=0"),
        (["noise_scale.groups=4", "aggregator=median"], "aggregator=mean takes; set noise_scale.groups=0"),
    ],
)
def test_refused(make_config, overrides, message):
    with pytest.raises(ConfigError, match=message):
        execute(make_config("controller=fixed", *overrides))
