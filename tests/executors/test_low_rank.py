"""Factors in place of each client's own weights are exact, also where lengths must not be underestimated."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.executors import choose, low_rank, vmap
from fedbatch.executors.choose import Executors
from fedbatch.executors.client_layers import ClientLayer
from fedbatch.executors.loop import loop
from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import mlp
from fedbatch.models.transformer import gpt

SIZES = [9, 2, 7, 6, 3, 5]
WORKS = {
    "epochs": (LocalSGD(lr=0.2, epochs=2), [[3, 3, 3, 3, 3, 3], [2, 0, 2, 0, 0, 0]]),
    "one step": (LocalSGD(lr=0.2, epochs=None, steps=1), [SIZES]),
    "proximal": (LocalSGD(lr=0.2, epochs=None, steps=3, proximal=0.7), [SIZES] * 3),
    "shrinks": (LocalSGD(lr=0.5, epochs=None, steps=3, proximal=2.0), [SIZES] * 3),  # all the way back each step
}


def images():
    conv = nn.Conv2d(1, 3, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 5)), conv, nn.ReLU(), nn.Flatten(), nn.Linear(27, 6), nn.Linear(6, 3))


MODELS = {
    "mlp": ((5,), lambda: mlp((5,), 3, width=7, depth=2)),
    "no bias": ((5,), lambda: nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))),
    "convolution": ((5, 5), images),
    "positions": ((4, 5), lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3))),
    "dropout": ((5,), lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.4), nn.Linear(8, 3))),
    "gpt": ((6,), lambda: gpt((6,), 7, layers=1, heads=2, width=4, tie_weights=False)),
}


@pytest.fixture(autouse=True)
def everything_factored(monkeypatch):
    monkeypatch.setattr(vmap, "pays", lambda *_: True)


def make_job(model, work, **options):
    shape, build = MODELS[model]
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(32, *shape))), torch.from_numpy(rng.integers(3, size=32))
    if model == "gpt":
        x, y = torch.from_numpy(rng.integers(7, size=(2, 32, *shape)))
    torch.manual_seed(0)
    flat = FlatModel(build().double())
    flat.is_random = model == "dropout"
    local, counts = WORKS[work]
    counts = np.array(counts).T
    draw = Draw(rng.integers(32, size=(*counts.shape, counts.max())), counts)
    weights = rng.uniform(1, 2, size=6)
    params, buffers = flat.params.clone(), flat.buffers.clone()
    return Job(flat, CrossEntropy(), x, y, local, np.arange(6), draw, weights, params, buffers, **options)


def assert_same(job, run=vmap.low_rank, tolerance=1e-11):
    before = job.params.clone()
    expected, got = loop(job), run(job)
    assert torch.equal(job.params, before)
    for field in ("update_sum", "unit_sum", "sq_norms", "losses"):
        a, b = (torch.as_tensor(getattr(c, field)).double() for c in (expected, got))
        assert a.shape == b.shape and float((a - b).abs().max() if len(a) else 0) <= tolerance * float(
            a.abs().max() if len(a) else 1
        ), field


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("model", MODELS)
def test_factors_give_what_the_loop_gives(model, work):
    job = make_job(model, work, cosine=True, seeds=np.arange(6))
    assert vmap._factored(job)[0], "or nothing is tested"
    assert_same(job)
    assert_same(job, vmap.stacked)


@pytest.mark.parametrize("norm", [1e9, 0.3])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("model", ["mlp", "convolution", "positions"])
def test_clipped_by_factors(model, per_layer, norm):
    for work in ("epochs", "proximal"):
        assert_same(make_job(model, work, clip=Clip(norm, per_layer)))


def test_chunks_of_one_client_leave_the_global_parameters(monkeypatch):
    monkeypatch.setattr(vmap, "STACK_BYTES", 1)
    for run in (vmap.low_rank, vmap.stacked, vmap.by_function):
        assert_same(make_job("mlp", "epochs"), run)


def test_float32_and_frozen_layers():
    job = make_job("mlp", "proximal")
    module = MODELS["mlp"][1]()
    next(m for m in module.modules() if isinstance(m, nn.Linear)).requires_grad_(False)
    model = FlatModel(module)
    assert_same(replace(job, model=model, x=job.x.float(), params=model.params.clone()), tolerance=1e-5)


def test_more_positions_than_there_is_room_for_are_written_down():
    weight = torch.randn(4, 3, dtype=torch.float64)
    layer = nn.Linear(3, 4, bias=False)
    own = ClientLayer(layer, [weight], clients=2, steps=2)
    ends = weight.repeat(2, 1, 1)
    for rows in (1, 2, 3):
        x, g = (torch.randn(2 * rows, size, dtype=torch.float64) for size in (3, 4))
        y = own.forward(x, 2)
        assert torch.allclose(y.view(2, rows, 4), x.view(2, rows, 3) @ ends.mT)
        own.update(x, g, 0.1, 2)
        ends -= 0.1 * g.view(2, rows, 4).mT @ x.view(2, rows, 3)
    [difference] = own.differences()
    assert torch.allclose(difference.sum(torch.tensor([1.0, 3.0]).double()), 4 * weight - ends[0] - 3 * ends[1])


SCALES, SLIPS = [1.0, 1e2, 1e4, 1e6], [0.0, 1e-7, 1e-6, 1e-3, 1.0]


@pytest.mark.parametrize("steps", [[3], [2, 1], [1, 1, 1]], ids=str)
def test_a_client_whose_steps_nearly_cancel_is_clipped(steps):
    for scale in SCALES:
        for slip in SLIPS:
            torch.manual_seed(0)
            x, y = torch.randn(9, 16), torch.zeros(9, dtype=torch.int64)
            one = torch.randn(16)
            x[0], x[1], x[2] = scale * one, -scale * one * (1 + slip), 0.0
            model = FlatModel(nn.Linear(16, 16))
            model.params.mul_(1e-12)
            work = LocalSGD(lr=1e-9, epochs=None, steps=len(steps))  # all steps at the start, to rounding
            positions = np.zeros((3, len(steps), max(steps)), np.int64)
            for client in range(3):
                order = np.split(np.arange(3) + 3 * client, np.cumsum(steps)[:-1])
                for step, examples in enumerate(order):
                    positions[client, step, : len(examples)] = examples
            sums = []
            for rows in ([0, 1, 2], [1, 2]):
                draw = Draw(positions[rows], np.tile(steps, (len(rows), 1)))
                state = {"params": model.params.clone(), "buffers": model.buffers.clone()}
                clip = Clip(1e-9)
                job = Job(
                    model, CrossEntropy(), x, y, work, np.array(rows), draw, np.ones(len(rows)), **state, clip=clip
                )
                found = vmap.low_rank(job)
                sums.append(found.update_sum.double())
                assert found.sq_norms.max() <= 1e-18 * (1 + 1e-6)
            assert float((sums[0] - sums[1]).norm()) <= 1e-9 * (1 + 1e-4), (scale, slip)


def test_lengths_of_steps_that_cancel_are_not_lost():
    torch.manual_seed(0)
    factors = low_rank.Factors.with_room(torch.zeros(4, 5), clients=50, room=2)
    x, g = torch.randn(50, 1, 5), torch.randn(50, 1, 4)
    for sign in (1.0, -1.0 - 1e-3):
        factors.forward(x)
        factors.append(x, sign * g, scale=1.0)
    expected = (x.double().mT @ (g.double() * 1e-3)).square().sum(dim=(1, 2))
    assert torch.allclose(factors.sq_norms(), expected, rtol=2e-3, atol=0)


def test_products_that_overflow_do_not_lose_a_client():
    factors = low_rank.Factors.with_room(torch.zeros(4, 5), clients=3, room=1)
    x, g = torch.randn(3, 1, 5), torch.randn(3, 1, 4)
    x[1] *= 1e20
    g[1] *= 1e-15
    factors.forward(x)
    factors.append(x, g, scale=1.0)
    expected = (g.double().mT @ x.double()).square().sum(dim=(1, 2))
    for exact in (False, True):
        assert torch.allclose(factors.sq_norms(exact), expected, rtol=1e-5)
        assert torch.allclose(factors.sum(torch.ones(3)), (g.mT @ x).sum(dim=0), rtol=1e-5)


def test_factors_are_taken_where_they_are_cheaper():
    assert low_rank.pays(nn.Linear(784, 256), rows=10, steps=5)
    assert low_rank.pays(nn.Linear(9216, 128), rows=10, steps=5)
    assert not low_rank.pays(nn.Linear(784, 32), rows=10, steps=5), "its positions outnumber its outputs"
    assert not low_rank.pays(nn.Linear(784, 256), rows=100, steps=5)
    assert not low_rank.pays(nn.Linear(784, 256), rows=10, steps=50)
    assert not low_rank.pays(nn.Linear(256, 256), rows=1000, steps=1), "pairs of positions cost more than their sum"
    assert not low_rank.pays(nn.Linear(256, 256), rows=1, steps=200), "more is kept than a weight has"


def test_more_clients_fit_where_less_is_kept_of_them():
    torch.manual_seed(0)
    wide = FlatModel(nn.Sequential(nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 3)))
    job = make_job("mlp", "one step")
    job = replace(job, model=wide, params=wide.params.clone(), x=torch.randn(32, 300))
    layers, kept = vmap._factored(job)
    assert layers == {wide.module[0], wide.module[2]}
    assert kept == 300 + 3 + 9 * (300 + 300 + 300 + 3), "biases; inputs and gradients of nine examples"
    monkeypatched = [len(list(vmap.chunks(job, n))) for n in (kept, 10**9)]
    assert monkeypatched[1] == 6 and monkeypatched[0] < 6


def test_a_form_is_used_only_if_those_it_goes_over_to_are_right_too(monkeypatch):
    def wrong(job):
        return replace(loop(job), sq_norms=2 * loop(job).sq_norms)

    job = make_job("mlp", "epochs")
    right = partial(loop)
    monkeypatch.setitem(choose.FORMS, "vmap", lambda job: [[vmap.low_rank, wrong], [right]])
    assert Executors()._form("vmap", job, lambda: job) is right
    monkeypatch.setitem(choose.FORMS, "vmap", lambda job: [[wrong]])
    assert "norm of a client's update" in Executors().unusable("vmap", job)
