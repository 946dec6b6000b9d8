"""Options by names of parameters, against torch's optimizers with groups written by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fedbatch.config.schema import identity_of, parse
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel
from fedbatch.optim import LAMB, Muon
from fedbatch.server import checkpoint
from fedbatch.server.optimizer import ServerOptimizer
from tests.conftest import run

RATES = [0.01, 0.02, 0.05, 0.1, 0.03]  # a warm-up, a larger batch, a decay


def net():
    torch.manual_seed(0)
    return nn.ModuleDict({"body": nn.Linear(5, 4), "norm": nn.LayerNorm(4), "out": nn.Linear(4, 3)})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = net()

    def forward(self, x):
        return self.parts["out"](self.parts["norm"](self.parts["body"](x)))


GROUPS = {
    "norms": {"names": ["*norm*", "*.bias"], "weight_decay": 0.0},
    "head": {"names": ["*out.weight"], "lr_factor": 0.25},
}
NORMS, HEAD = ["body.bias", "norm.weight", "norm.bias", "out.bias"], ["out.weight"]
OPTIMIZERS = {
    "torch.optim.SGD": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.3}, {}),
    "torch.optim.AdamW": (torch.optim.AdamW, {"weight_decay": 0.3}, {"betas": (0.5, 0.6)}),
    "fedbatch.optim.LAMB": (LAMB, {"weight_decay": 0.3}, {"eps": 0.01}),
    "torch.optim.Adagrad": (torch.optim.Adagrad, {"initial_accumulator_value": 0.5}, {"lr_decay": 0.1}),  # has state
}


@pytest.mark.parametrize("target", OPTIMIZERS)
def test_steps_are_those_of_torch_with_the_same_groups(target):
    kind, options, of_head = OPTIMIZERS[target]
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in of_head.items()}
    groups = {**GROUPS, "head": GROUPS["head"] | listed}
    model = FlatModel(Net())
    ours = ServerOptimizer(model, {"_target_": target, "lr": 0.5, "groups": groups, **options})
    theirs = net()
    named = dict(theirs.named_parameters())
    by_hand = kind(
        [
            {"params": [named[name] for name in NORMS], "weight_decay": 0.0},
            {"params": [named[name] for name in HEAD], **of_head},
            {"params": [named["body.weight"]]},
        ],
        lr=0.5,
        **options,
    )
    for seed, lr in enumerate(RATES):
        update = torch.randn(len(model.params), generator=torch.Generator().manual_seed(seed))
        ours.step(update, lr)
        for name, grad in zip(model.names, model.split(update), strict=True):
            named[name.removeprefix("parts.")].grad = grad.clone()
        for group, rate in zip(by_hand.param_groups, (lr, lr * 0.25, lr), strict=True):
            group["lr"] = rate
        by_hand.step()
    for name, p in zip(model.names, model.trainable, strict=True):
        assert torch.equal(p, named[name.removeprefix("parts.")]), name


def test_state_that_a_group_begins_with_is_its_own():
    groups = {"out": {"names": ["*out*"], "initial_accumulator_value": 0.5}}
    model, theirs = FlatModel(Net()), net()
    node = {"_target_": "torch.optim.Adagrad", "lr": 0.1, "groups": groups}
    ServerOptimizer(model, node).step(torch.ones_like(model.params), 0.1)
    for p in theirs.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.Adagrad(theirs["out"].parameters(), lr=0.1, initial_accumulator_value=0.5).step()
    torch.optim.Adagrad([*theirs["body"].parameters(), *theirs["norm"].parameters()], lr=0.1).step()
    for p, q in zip(model.trainable, theirs.parameters(), strict=True):
        assert torch.equal(p, q)


def test_muon_splits_each_group():
    groups = {"head": {"names": ["*out.*"], "momentum": 0.5, "betas": [0.5, 0.6], "lr_factor": 2.0}}
    model, theirs = FlatModel(Net()), net()
    ours = ServerOptimizer(model, {"_target_": "fedbatch.optim.Muon", "lr": 0.1, "groups": groups})
    head = Muon(theirs["out"].parameters(), lr=0.2, momentum=0.5, betas=(0.5, 0.6))
    rest = Muon([*theirs["body"].parameters(), *theirs["norm"].parameters()], lr=0.1)
    for seed in range(3):
        update = torch.randn(len(model.params), generator=torch.Generator().manual_seed(seed))
        ours.step(update, 0.1)
        for p, grad in zip(theirs.parameters(), model.split(update), strict=True):
            p.grad = grad.clone()
        head.step()
        rest.step()
    for p, q in zip(model.trainable, theirs.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_direction_keeps_the_ratio_of_rates():
    model = FlatModel(Net())
    ours = ServerOptimizer(model, {"_target_": "torch.optim.SGD", "lr": 0.5, "groups": GROUPS})
    ours.step(torch.ones_like(model.params), 0.125)
    factors = [0.25 if name == "parts.out.weight" else 1.0 for name in model.names]
    told = model.split(ours.direction()(torch.ones_like(model.params).double()))
    for factor, step in zip(factors, told, strict=True):
        torch.testing.assert_close(step, torch.full_like(step, factor))


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (
            {"norms": {"names": ["*nrom*"]}},
            r"groups\.norms\.names: '\*nrom\*' matches none of the parameters parts\.bo",
        ),
        ({"a": {"names": ["*out*"]}, "b": {"names": ["*.bias"]}}, r"groups: parts\.out\.bias is in a and in b; narrow"),
        (
            {"norms": {"names": ["*norm*"], "weigth_decay": 0}},
            r"groups\.norms: .*unexpected keyword argument 'weigth_de",
        ),
        ({"norms": {"names": ["*norm*"], "lr": 0.1}}, r"groups\.norms\.lr is no option of a group; set lr_factor"),
        ({"norms": {"names": ["*norm*"], "lr_factor": "half"}}, r"groups\.norms\.lr_factor must be a number"),
        (
            {"norms": {"names": ["*norm*"], "lr_factor": -1}},
            r"groups\.norms\.lr_factor must be a number in \[0, 1e\+06",
        ),
        ({"norms": {"names": ["*norm*"], "momentum": "much"}}, r"groups\.norms: momentum must be a number"),
        ({"norms": {"names": ["*norm*"], "momentum": -1.0}}, r"groups\.norms: Invalid momentum"),
        ({"norms": {"names": "*norm*"}}, r"groups\.norms\.names must be a list of patterns"),
        ({"norms": {"weight_decay": 0}}, r"groups\.norms\.names must be a list of patterns"),
        ([{"names": ["*"]}], r"groups must be a mapping of names to options"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(groups, told):
    with pytest.raises(ConfigError, match="^server_optimizer." + told) as error:
        ServerOptimizer(FlatModel(Net()), {"_target_": "torch.optim.SGD", "lr": 0.1, "groups": groups})
    assert "\n" not in str(error.value)


def test_an_option_that_no_group_can_have_is_refused():
    groups = {"out": {"names": ["*out*"], "adamw": ["*"]}}
    with pytest.raises(ConfigError, match=r"groups\.out\.adamw is the same for all parameters of this optimizer"):
        ServerOptimizer(FlatModel(Net()), {"_target_": "fedbatch.optim.Muon", "lr": 0.1, "groups": groups})


def test_all_parameters_may_be_in_groups():
    groups = {"all": {"names": ["*"], "lr_factor": 0.5}}
    model = FlatModel(Net())
    before = model.params.clone()
    ServerOptimizer(model, {"_target_": "torch.optim.SGD", "lr": 1.0, "groups": groups}).step(
        torch.ones_like(before), 1.0
    )
    torch.testing.assert_close(before - model.params, torch.full_like(before, 0.5))


BASE = ("server_optimizer=adamw", "controller=fixed", "model=mlp", "rounds=4", "checkpoint_every_rounds=2")
BY_BIAS = "server_optimizer.groups={biases: {names: ['*.bias'], weight_decay: 0, lr_factor: 0.5}}"


def test_a_run_goes_on_bit_for_bit(make_config, tmp_path):
    whole = make_config(*BASE, BY_BIAS)
    run(whole)
    plain = replace(make_config(*BASE), run_dir=str(tmp_path / "plain"))
    run(plain)
    parted = replace(whole, run_dir=str(tmp_path / "parted"), rounds=2)
    run(parted)
    run(parse(json.loads(parted.to_json()) | {"resume": parted.run_dir, "rounds": 4}))
    found = [checkpoint.load_latest(Path(each.run_dir) / "checkpoints").params for each in (whole, parted, plain)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_refused_before_the_first_round(make_config):
    with pytest.raises(ConfigError, match="matches none of the parameters"):
        run(make_config(*BASE, "server_optimizer.groups={norms: {names: ['*norm*'], weight_decay: 0}}"))
    with pytest.raises(ConfigError, match=r"server_optimizer\.groups\.biases\.weight_decay must be in \[0, 1e6\]"):
        make_config(*BASE, "server_optimizer.groups={biases: {names: ['*.bias'], weight_decay: -1}}")


def test_no_groups_are_those_of_a_config_before_there_were_any(make_config):
    values = json.loads(make_config(*BASE).to_json())
    assert values["server_optimizer"].pop("groups") is None
    assert identity_of(values) == make_config(*BASE).identity() != make_config(*BASE, BY_BIAS).identity()
