"""Pooling first changes no number, and leaves no trace in the model."""

import copy

import pytest
import torch
from torch import nn

from fedbatch.executors import vmap
from fedbatch.executors.choose import EXECUTORS, Executors
from fedbatch.executors.loop import loop
from fedbatch.executors.pool_first import pool_first, reordered
from tests.executors.test_executors import make_job

nan, inf = float("nan"), float("inf")
IMAGES = {
    "ordinary": lambda: torch.randn(3, 2, 9, 8),
    "negative only": lambda: -torch.rand(3, 2, 9, 8) - 0.1,
    "ties": lambda: torch.randint(-2, 3, (3, 2, 9, 8)).double(),
    "all the same": lambda: torch.ones(3, 2, 9, 8),
    "zeros of both signs": lambda: torch.tensor([0.0, -0.0]).repeat(3, 2, 9, 4),
    "beyond both ends": lambda: torch.randint(-9, 10, (3, 2, 9, 8)).double(),
    "not a number": lambda: torch.randn(3, 2, 9, 8).masked_fill(torch.rand(3, 2, 9, 8) < 0.2, nan),
    "infinite": lambda: torch.randn(3, 2, 9, 8).masked_fill(torch.rand(3, 2, 9, 8) < 0.3, -inf),
}
POOLS = {
    "plain": lambda: nn.MaxPool2d(2),
    "padded": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "overlapping": lambda: nn.MaxPool2d((3, 2), stride=1, padding=(1, 0)),
    "rounded up": lambda: nn.MaxPool2d(4, stride=3, padding=2, ceil_mode=True),
}
ACTIVATIONS = {"ReLU": nn.ReLU, "ReLU6": nn.ReLU6, "Hardtanh": lambda: nn.Hardtanh(-0.5, 0.7)}


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_the_same_numbers(activation, pool, image, layout):
    torch.manual_seed(0)
    module = nn.Sequential(ACTIVATIONS[activation](), POOLS[pool]())
    x = IMAGES[image]().contiguous(memory_format=layout).requires_grad_()
    results = []
    for swapped in (False, True):
        if swapped:
            assert [type(m) for _, order in reordered(module) for m in order] == [nn.MaxPool2d, type(module[0])]
            with pool_first(module):
                y = module(x)
        else:
            y = module(x)
        weights = torch.arange(1, 1 + y.numel(), dtype=y.dtype).view(y.shape)
        results.append((y.detach(), torch.autograd.grad((y * weights).sum(), x)[0]))
    for plain, first in list(zip(*results, strict=True))[
        : 1 if image == "not a number" and activation != "ReLU" else 2
    ]:
        assert torch.equal(plain.nan_to_num(7.5), first.nan_to_num(7.5))


class Own(nn.ReLU):
    pass


class OwnSequential(nn.Sequential):
    pass


def hooked(module, where, hook):
    getattr(module if where is None else module[where], hook)(lambda *_: None)
    return module


def overridden():
    module = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    module[0].forward = torch.abs
    return module


KEPT = {
    "subclass of the activation": lambda: nn.Sequential(Own(), nn.MaxPool2d(2)),
    "subclass of Sequential": lambda: OwnSequential(nn.ReLU(), nn.MaxPool2d(2)),
    "flat somewhere by rounding": lambda: nn.Sequential(nn.Sigmoid(), nn.MaxPool2d(2)),
    "decreasing somewhere": lambda: nn.Sequential(nn.GELU(), nn.MaxPool2d(2)),
    "in place": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    "indices": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True)),
    "windows of padding": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, padding=1, dilation=2)),
    "mean": lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
    "something between": lambda: nn.Sequential(nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2)),
    "hook": lambda: hooked(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 0, "register_forward_hook"),
    "hook before": lambda: hooked(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 1, "register_forward_pre_hook"),
    "hook of the whole": lambda: hooked(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), None, "register_forward_hook"),
    "hook backward": lambda: hooked(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 1, "register_full_backward_hook"),
    "forward of its own": overridden,
}


@pytest.mark.parametrize("kept", KEPT)
def test_what_is_left_alone(kept):
    assert reordered(KEPT[kept]()) == []


def test_hooks_on_all_modules_forbid_it():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert reordered(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))) == []
    finally:
        handle.remove()


def test_dilated_windows_of_padding_alone_would_differ():
    x = torch.tensor([[[[3.0]]]])
    activation, pool = nn.ReLU(), nn.MaxPool2d(2, stride=1, padding=1, dilation=2)
    assert float(pool(activation(x))) == -inf and float(activation(pool(x))) == 0


def test_nested_sequentials_and_chains_of_pools():
    inner = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(1))
    module = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(1, 1, 1), inner)})
    [(found, order)] = reordered(module)
    assert found is inner and order == [inner[1], inner[2], inner[0]]


def test_the_module_is_as_before_whatever_happens():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    before = repr(module), list(module.state_dict()), set(vars(module))
    with pytest.raises(RuntimeError), pool_first(module):
        module(torch.ones(2, 3))
    assert (repr(module), list(module.state_dict()), set(vars(module))) == before
    assert copy.deepcopy(module)(torch.ones(1, 1, 4, 4)).shape == (1, 2, 2, 2)


@pytest.mark.parametrize("work", ["fedsgd", "epochs"])
def test_fast_executors_pool_first_and_the_loop_does_not(work, monkeypatch):
    seen = []

    def forward(self, x):
        seen.extend([tuple(x.shape[2:])] * (len(x) > 1))  # and not where a shape is looked for
        return torch.relu(x)

    monkeypatch.setattr(nn.ReLU, "forward", forward)
    job = make_job("cnn", work=work)
    forms = [EXECUTORS["fused"], vmap.by_function] if work == "fedsgd" else [f for f, *_ in vmap.forms(job)]
    for run, sizes in [(loop, {(6, 6), (4, 4), ()}), *[(form, {(6, 6), (2, 2), ()}) for form in forms]]:
        run(job)
        seen.clear()
        run(job)  # what is found out once of a model is known
        assert set(seen) == sizes


def test_the_line_of_the_choice_says_it(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path))
    monkeypatch.setattr("fedbatch.executors.choose._time", lambda execute, _: 0.1 + (execute is loop))
    caplog.set_level("INFO")
    for model, times in (("cnn", 2), ("mlp", 0)):
        caplog.clear()
        for _ in range(2):  # measured, and as measured before
            job = make_job(model)
            assert Executors().chosen(job, lambda job=job: job) != "loop"
        assert caplog.text.count("pools before the activation") == times
