"""Gradients whose positions nearly cancel: on every route, one outlier moves the sum by no more than the clip norm."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.per_example import as_examples
from fedbatch.executors.choose import EXECUTORS
from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel

CLIP, CLASSES, EXAMPLES = 1.0, 4, 6
SCALES = [1e2, 1e4, 1e6]
SLIPS = [0.0, 1e-7, 1e-6, 1e-3]
"""By how much the second position misses to cancel the first."""


class Positions(nn.Module):
    """One affine map of every position; their sum is classified."""

    def __init__(self, width=16):
        super().__init__()
        self.each, self.last = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.last(self.each(x).sum(dim=1))


class Pixels(nn.Module):
    """A convolution whose outputs are added up over pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 4, 1), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.last(self.conv(x).sum(dim=(2, 3)))


class Tokens(nn.Module):
    """An embedding of equal tokens that count with opposite signs; ``x`` (n, 2)."""

    def __init__(self, scale, slip):
        super().__init__()
        self.table, self.last = nn.Embedding(5, 8), nn.Linear(8, CLASSES)
        self.signs = [scale, -scale * (1 + slip)]

    def forward(self, x):
        rows = self.table(x)
        big = (x[:, :1] == 4).to(rows.dtype)  # the outlier's token
        signs = [big * s + (1 - big) for s in self.signs]
        return self.last(rows[:, 0] * signs[0] + rows[:, 1] * signs[1])


def case(kind, scale, slip, seed):
    """A model, inputs whose first example is the outlier, and labels."""
    torch.manual_seed(seed)
    if kind == "tokens":
        x = torch.randint(4, (EXAMPLES, 2))
        x[0] = 4
        return Tokens(scale, slip), x, torch.randint(CLASSES, (EXAMPLES,))
    shape = (EXAMPLES, 2, 16) if kind == "positions" else (EXAMPLES, 2, 1, 2)
    x = torch.randn(shape)
    one = torch.randn(shape[2]) if kind == "positions" else torch.randn(2, 1)
    if kind == "positions":
        x[0, 0], x[0, 1] = scale * one, -scale * one * (1 + slip)
    else:
        x[0, :, :, 0], x[0, :, :, 1] = scale * one, -scale * one * (1 + slip)
    return (Positions() if kind == "positions" else Pixels()), x, torch.randint(CLASSES, (EXAMPLES,))


def example_job(model, x, y, positions):
    work, ids, draw, weights = as_examples(np.asarray(positions), Clip(CLIP))
    flat = FlatModel(model)
    state = {"params": flat.params.clone(), "buffers": flat.buffers.clone()}
    return replace(Job(flat, CrossEntropy(), x, y, work, ids, draw, weights, **state), clip=Clip(CLIP))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus's, on a first layer
@pytest.mark.parametrize("kind", ["positions", "pixels", "tokens"])
@pytest.mark.parametrize("executor", ["fused", "vmap", "ghost", "loop"])
def test_an_example_whose_positions_nearly_cancel_is_clipped(kind, executor):
    for scale in SCALES:
        for slip in SLIPS:
            for seed in range(3):
                model, x, y = case(kind, scale, slip, seed)
                run = EXECUTORS[executor]
                whole = run(example_job(model, x, y, np.arange(EXAMPLES)))
                without = run(example_job(model, x, y, np.arange(1, EXAMPLES)))
                moved = float((whole.update_sum - without.update_sum).double().norm())
                assert moved <= CLIP * (1 + 1e-4), (scale, slip, seed)
                assert whole.sq_norms.max() <= CLIP**2 * (1 + 1e-6)


@pytest.mark.parametrize("executor", ["fused", "vmap", "loop"])
def test_a_client_whose_examples_nearly_cancel_is_clipped(executor):
    for scale in SCALES:
        for slip in SLIPS:
            torch.manual_seed(0)
            x, y = torch.randn(9, 16), torch.zeros(9, dtype=torch.int64)
            one = torch.randn(16)
            x[0], x[1], x[2] = scale * one, -scale * one * (1 + slip), 0.0
            model = FlatModel(nn.Linear(16, 16))
            model.params.mul_(1e-12)  # each example has the same gradient at the output, whatever its input
            sums = []
            for clients in ([0, 1, 2], [1, 2]):
                positions = np.array([[[0, 1, 2]], [[3, 4, 5]], [[6, 7, 8]]])[np.array(clients)]
                draw = Draw(positions, np.full((len(clients), 1), 3))
                state = {"params": model.params.clone(), "buffers": model.buffers.clone()}
                ids, ones = np.array(clients), np.ones(len(clients))
                job = Job(model, CrossEntropy(), x, y, FedSGD(), ids, draw, ones, **state, clip=Clip(CLIP))
                sums.append(EXECUTORS[executor](job).update_sum.double())
            assert float((sums[0] - sums[1]).norm()) <= CLIP * (1 + 1e-4), (scale, slip)


def test_ordinary_gradients_are_clipped_by_their_own_length():
    model, x, y = case("positions", 1.0, 0.5, 0)
    exact = EXECUTORS["loop"](replace(example_job(model, x, y, np.arange(EXAMPLES)), clip=Clip(1e9)))
    found = EXECUTORS["fused"](replace(example_job(model, x, y, np.arange(EXAMPLES)), clip=Clip(1e9)))
    assert np.allclose(found.sq_norms, exact.sq_norms, rtol=1e-5)
