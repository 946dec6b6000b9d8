"""One call for all clients' convolutions gives what a call for each gives."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedbatch.clients.clip import Clip
from fedbatch.executors import fused, layer_rules, stacked_layers, vmap
from fedbatch.executors.convolutions import (
    at_once,
    conv_weight_gradient,
    grouped_outputs,
    grouped_weight_gradients,
)
from tests.executors.test_cancellation import CLIP, EXAMPLES, SCALES, SLIPS, case, example_job
from tests.executors.test_executors import EQUAL, UNEQUAL, assert_equal, make_job

LAYERS = {
    "plain": lambda: nn.Conv2d(2, 4, 3),
    "padded, strided": lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1),
    "dilated, no bias": lambda: nn.Conv2d(2, 4, (3, 2), dilation=(1, 2), bias=False),
    "groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "one pixel": lambda: nn.Conv2d(3, 5, 1, stride=2),
}


@pytest.fixture
def one_call(monkeypatch):
    """The rule of other devices."""
    for module in (layer_rules, stacked_layers):
        monkeypatch.setattr(module, "at_once", lambda x: True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", LAYERS)
def test_grouped_forms_are_each_clients_own(kind, layout):
    torch.manual_seed(0)
    layer = LAYERS[kind]().double().to(memory_format=layout)
    x = torch.randn(3 * 2, layer.in_channels, 7, 6, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(3, *layer.weight.shape, dtype=torch.float64)
    bias = None if layer.bias is None else torch.randn(3, layer.out_channels, dtype=torch.float64)
    outputs, gradients = [], []
    for k, part in enumerate(x.chunk(3)):
        own = LAYERS[kind]().double()
        own.weight.data, own.bias = weight[k], None if bias is None else nn.Parameter(bias[k])
        y = own(part)
        outputs.append(y.detach())
        gradients.append(torch.autograd.grad(y.square().sum(), own.weight)[0])
    y = grouped_outputs(layer, weight, bias, x.unflatten(0, (3, 2)))
    assert torch.allclose(y, torch.stack(outputs), rtol=1e-12, atol=1e-12)
    own = grouped_weight_gradients(layer, x.unflatten(0, (3, 2)), 2 * y)
    assert torch.allclose(own, torch.stack(gradients), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("work", ["fedsgd", "epochs", "steps_proximal"])
@pytest.mark.parametrize("model", ["cnn", "cnn_group", "resnet18"])
def test_executors_with_one_call_agree_with_the_loop(model, work, batch, one_call):
    assert_equal(make_job(model, work=work, batch=batch), "fused" if work == "fedsgd" else "vmap")


def test_halves_with_one_call(one_call):
    assert_equal(make_job("cnn", batch=UNEQUAL, halves=True), "fused", tolerance=1e-8)


def test_clipping_with_one_call_holds_where_pixels_nearly_cancel(one_call):
    for scale in SCALES:
        for slip in SLIPS:
            model, x, y = case("pixels", scale, slip, 0)
            whole, without = (fused.fused(example_job(model, x, y, range(first, EXAMPLES))) for first in (0, 1))
            assert float((whole.update_sum - without.update_sum).double().norm()) <= CLIP * (1 + 1e-4), (scale, slip)
            assert whole.sq_norms.max() <= CLIP**2 * (1 + 1e-6)


class Convolutions(TorchDispatchMode):
    """Counts them by name."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.name()] += "conv" in func.name()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("work", ["fedsgd", "steps_proximal"])
def test_the_number_of_calls_does_not_grow_with_clients(work, one_call):
    job = make_job("cnn", work=work, batch=EQUAL)
    run = fused.fused if work == "fedsgd" else vmap.stacked
    counted = []
    for clients in (2, 6):
        run(job.select(slice(0, clients)))  # what is found out once of a model is known
        with Convolutions() as mode:
            run(job.select(slice(0, clients)))
        counted.append(+mode.calls)
    assert counted[0] == counted[1] and sum(counted[0].values()) > 0


def test_a_cpu_takes_each_client_on_its_own():
    assert not at_once(torch.zeros(1)) and at_once(torch.zeros(1, device="meta"))


def test_rounding_of_single_calls_stays_that_of_the_layer():
    layer, x = nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5)
    y = layer(x)
    expected = torch.autograd.grad(y.sum(), layer.weight)[0]
    assert torch.equal(conv_weight_gradient(layer, layer.weight, x, torch.ones_like(y)), expected)


def test_layers_are_clipped_alike_with_one_call(one_call):
    job = replace(make_job("cnn_group", batch=UNEQUAL), cosine=False)
    for clip in (Clip(0.1), Clip(0.1, per_layer=True)):
        assert_equal(replace(job, clip=clip), "fused")
