"""Updates parameter by parameter have the lengths, the clipped sum and the order of flat ones."""

import pytest
import torch
from torch import nn

from fedbatch.clients.clip import Clip
from fedbatch.executors.updates import FlatUpdates, ParameterUpdates, Stack
from fedbatch.models.flat import FlatModel


@pytest.mark.parametrize("clip", [None, Clip(1.0), Clip(1.0, per_layer=True), Clip(1e9)], ids=str)
def test_by_parameter_and_flat_are_the_same(clip):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 2), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 2, bias=False)]
    model = FlatModel(nn.Sequential(*layers).double(), channels_last=True)
    flat = torch.randn(4, model.params.numel(), dtype=torch.float64)
    weights = torch.rand(4, dtype=torch.float64)
    by_parameter = ParameterUpdates(model, [Stack(t.clone()) for t in model.split(flat)])
    whole = FlatUpdates(flat[:, None].clone(), model.layer_sizes)
    found = [u.products() if clip is None else u.clipped(clip) for u in (by_parameter, whole)]
    assert torch.allclose(found[0], found[1], rtol=1e-12)
    assert torch.allclose(by_parameter.sum(weights), whole.sum(weights), rtol=1e-12)
    if clip is None:
        assert torch.allclose(found[0].flatten(), flat.square().sum(dim=1))
        assert torch.allclose(by_parameter.sum(weights), weights @ flat)


def test_lengths_of_long_vectors_are_summed_in_float64():
    values = torch.full((1, 10**6), 0.1)
    expected = 10**6 * float(values[0, 0]) ** 2
    assert float(Stack(values).sq_norms()) == pytest.approx(expected, rel=1e-6)


def test_parameters_know_their_layer():
    model = FlatModel(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1, bias=False), nn.Linear(1, 4)))
    assert model.layer_of_parameter == [0, 0, 1, 2, 2]
