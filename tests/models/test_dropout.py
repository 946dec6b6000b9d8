"""Dropout by key: its law, and the same draws in whatever batch an example is computed."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.func import vmap
from torch.utils.checkpoint import checkpoint

from fedbatch.models.dropout import generator_states, keyed_dropout, own_generators

KEY = torch.tensor(123456789012345)


def kept(p, shape=(200, 500), key=KEY):
    with keyed_dropout(key, shape[0]):
        return F.dropout(torch.ones(shape), p, True)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9])
def test_the_share_dropped_is_p_and_what_is_kept_is_scaled(p):
    values = kept(p)
    np.testing.assert_allclose(np.unique(values.numpy()), [0.0, 1 / (1 - p)], rtol=1e-6)
    dropped = int((values == 0).sum())
    assert stats.binomtest(dropped, values.numel(), p).pvalue > 1e-4
    by_row, by_column = ((values == 0).double().mean(dim=d) for d in (1, 0))
    for share, n in ((by_row, 500), (by_column, 200)):
        z = (share - p) / (p * (1 - p) / n) ** 0.5
        assert stats.chi2.sf(float(z @ z), len(z)) > 1e-5


def test_draws_of_keys_calls_and_neighbours_are_not_correlated():
    with keyed_dropout(KEY, 200):
        first, second = (F.dropout(torch.ones(200, 500), 0.5, True).flatten() for _ in range(2))
    other = kept(0.5, key=KEY + 1).flatten()
    for a, b in ((first, second), (first, other), (first[1:], first[:-1]), (first[500:], first[:-500])):
        assert abs(np.corrcoef(a.numpy(), b.numpy())[0, 1]) < 5 / len(a) ** 0.5


def test_nothing_and_everything():
    assert torch.equal(kept(0.0), torch.ones(200, 500)) and not kept(1.0).any()
    with keyed_dropout(KEY, 2):
        assert torch.equal(F.dropout(torch.ones(2, 3), 0.5, False), torch.ones(2, 3))


def test_alone_in_a_batch_of_many_clients_and_under_vmap():
    module = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.Dropout2d(0.4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(27, 2)
    ).double()
    x, keys = torch.randn(3, 5, 1, 4, 4).double(), torch.tensor([3, 1 << 61, 77])
    alone = []
    for own, key in zip(x, keys, strict=True):
        with keyed_dropout(key, 5, seed=int(key)):
            alone.append(module(own))
    expected = torch.stack(alone)
    with keyed_dropout(keys.repeat_interleave(5), 15, torch.arange(5).repeat(3)):
        torch.testing.assert_close(module(x.flatten(0, 1)).view(3, 5, 2), expected)

    def call(own, key, first):
        with keyed_dropout(key, len(own), first):
            return module(own)

    torch.testing.assert_close(vmap(call)(x, keys, torch.zeros(3, dtype=torch.int64)), expected)
    with keyed_dropout(keys[0], 3, 2, seed=3):  # the last three examples on their own
        torch.testing.assert_close(module(x[0, 2:]), expected[0, 2:])


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_layer_draws_again_what_it_drew(reentrant):
    layers, last = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.5)), nn.Linear(30, 1)
    gradients = []
    for forward in (layers, lambda x: checkpoint(layers, x, use_reentrant=reentrant)):
        x = torch.ones(6, 4, requires_grad=True)
        with keyed_dropout(KEY, 6, seed=5):
            last(forward(x)).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients) and gradients[0].any()


def test_a_batch_axis_that_is_not_first_is_refused_for_many_clients():
    with (
        keyed_dropout(torch.arange(4), 4, torch.zeros(4, dtype=torch.int64)),
        pytest.raises(RuntimeError, match="first axis"),
    ):
        F.dropout(torch.ones(7, 4), 0.5, True)


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), np.random.rand, random.random])
def test_a_draw_that_several_clients_would_share_is_refused(draw):
    with keyed_dropout(KEY, 2):
        draw()
    with pytest.raises(RuntimeError, match="shared by clients"), keyed_dropout(KEY, 2, several=True):
        draw()
    with keyed_dropout(torch.arange(2), 2, torch.zeros(2, dtype=torch.int64), several=True):
        F.dropout(torch.ones(2, 4), 0.5, True)


def test_torch_is_as_before_afterwards():
    original = F.dropout, torch.dropout
    before = torch.get_rng_state()
    with own_generators(True), keyed_dropout(KEY, 2):
        assert F.dropout is not original[0]
        torch.rand(3), np.random.rand()
    assert (F.dropout, torch.dropout) == original and torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def on_gpu(monkeypatch):
    """A generator that stands for the one of a GPU."""
    generator = torch.Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    return generator


def test_what_a_gpu_draws_beside_dropout_follows_from_the_seed(on_gpu):
    def draw(seed):
        with keyed_dropout(torch.tensor(1), 4, seed=seed):
            return torch.rand(5, generator=on_gpu)

    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))


def test_a_draw_of_a_gpu_is_not_shared_by_clients(on_gpu):
    with pytest.raises(RuntimeError, match="shared by clients"), keyed_dropout(torch.arange(4), 4, several=True):
        torch.rand(5, generator=on_gpu)


def test_generators_of_gpus_are_left_as_they_were(on_gpu):
    before = generator_states()
    with own_generators(True):
        torch.rand(5, generator=on_gpu)
        assert generator_states() != before
    assert generator_states() == before
