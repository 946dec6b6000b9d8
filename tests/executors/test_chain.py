"""The compiled chain beside the loop in float64, what it refuses, and what it does without a compiler."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.executors import chain, compiled
from fedbatch.executors.choose import Executors
from fedbatch.executors.loop import loop
from fedbatch.losses import CrossEntropy, Focal
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import logistic, mlp

MODELS = {
    "logistic": lambda: logistic((2, 3), 4),
    "one hidden": lambda: mlp((2, 3), 4, width=5, depth=1),
    "three hidden": lambda: mlp((2, 3), 4, width=5, depth=3),
    "wide": lambda: mlp((2, 40), 3, width=70, depth=1),  # batches are small beside it: lengths by pairs of examples
    "no flatten": lambda: nn.Sequential(nn.Linear(6, 4)),
}
WORKS = {"fedsgd": FedSGD(), "local": LocalSGD(lr=0.3), "proximal": LocalSGD(lr=0.3, proximal=0.7)}
UNEVEN = {"fedsgd": [[3], [1], [7], [2]], "local": [[3, 2, 1], [1, 0, 1], [7, 7, 7], [0, 2, 0]]}


def make_job(model="one hidden", work="fedsgd", dtype=torch.float64, loss=None, **changes):
    torch.manual_seed(0)
    flat, rng = FlatModel(MODELS[model]().to(dtype)), np.random.default_rng(0)
    flat.params.copy_(torch.randn(len(flat.params), dtype=torch.float64))
    shape = (6,) if model == "no flatten" else (2, 40) if model == "wide" else (2, 3)
    counts = np.array(UNEVEN["fedsgd" if work == "fedsgd" else "local"])
    draw = Draw(rng.integers(0, 30, (*counts.shape, counts.max())), counts)
    job = Job(
        model=flat,
        loss=loss or CrossEntropy(),
        x=torch.from_numpy(rng.normal(size=(30, *shape))).to(dtype),
        y=torch.from_numpy(rng.integers(0, 3, 30)),
        work=WORKS[work],
        clients=np.arange(4),
        draw=draw,
        weights=np.array([2.0, 0.5, 1.0, 3.0]),
        params=flat.params.clone(),
        buffers=flat.buffers.clone(),
    )
    return replace(job, **changes)


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("model", MODELS)
def test_it_computes_what_the_loop_computes(model, work, compiler, monkeypatch):
    monkeypatch.setattr(chain, "CHUNK_BYTES", 300)  # several chunks
    job = make_job(model, work)
    assert chain.unsupported(job) is None
    before = job.params.clone()
    expected, got = loop(job), chain.chain(job)
    assert torch.equal(job.params, before)
    torch.testing.assert_close(got.update_sum, expected.update_sum, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got.sq_norms, expected.sq_norms, rtol=1e-11)
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-11)


@pytest.mark.parametrize("work", WORKS)
def test_float32_agrees_to_rounding(work, compiler):
    expected, got = loop(make_job("wide", work)), chain.chain(make_job("wide", work, torch.float32))
    error = (got.update_sum.double() - expected.update_sum).norm() / expected.update_sum.norm()
    assert got.update_sum.dtype == torch.float32 and error < 1e-5


@pytest.mark.parametrize("work", WORKS)
def test_the_bits_do_not_depend_on_where_memory_lies(work, compiler):
    jobs = [make_job("wide", work, torch.float32) for _ in range(8)]
    between, found = [], []
    for number, job in enumerate(jobs):
        between.append(np.zeros(1001 * (number + 1) + number, np.uint8))
        found.append(chain.chain(job).update_sum)
    assert all(torch.equal(each, found[0]) for each in found)


def hooked(module):
    module[1].register_forward_hook(lambda *_: None)


def frozen(module):
    module[1].weight.requires_grad_(False)


def changed(module, place, layer):
    module[place] = layer.double()


OTHERS = {
    "plain SGD on plain": [dict(loss=Focal(2.0)), dict(loss=CrossEntropy(label_smoothing=0.1))],
    "neither clips": [dict(clip=Clip(1.0)), dict(halves=True), dict(cosine=True)],
    "one label": [
        dict(y=torch.zeros(30, 2, dtype=torch.int64)),
        dict(x=torch.zeros(2, 3, 30, dtype=torch.float64).permute(2, 1, 0)),
    ],
    "no chain": [
        hooked,
        frozen,
        *(lambda m, i=i, n=n: changed(m, i, n) for i, n in ((2, nn.Tanh()), (3, nn.LazyLinear(4)))),
    ],
}


@pytest.mark.parametrize(("reason", "change"), [(reason, each) for reason, all_ in OTHERS.items() for each in all_])
def test_what_it_cannot_do_is_said(reason, change):
    job = make_job(**change) if isinstance(change, dict) else make_job()
    if callable(change):
        module = copy.deepcopy(job.model.module)
        change(module)
        job = replace(
            job, model=FlatModel(module) if reason != "no chain" or change in (hooked, frozen) else Named(module)
        )
    assert reason in chain.unsupported(job)


class Named:
    """As much of a model as is looked at."""

    def __init__(self, module):
        self.module, self.trainable = module, list(module.parameters())


@pytest.mark.parametrize("changes", [dict(y=torch.full((30,), 4)), dict(y=torch.full((30,), -100))])
def test_a_label_out_of_range_is_an_error_and_no_wild_read(changes, compiler):
    with pytest.raises(RuntimeError, match="out of range"):
        chain.chain(make_job(**changes))


def test_a_position_out_of_range_is_an_error_and_no_wild_read(compiler):
    draw = make_job().draw
    with pytest.raises(RuntimeError, match="out of range"):
        chain.chain(make_job(draw=replace(draw, positions=draw.positions + 30)))


@pytest.mark.parametrize("command", [("no-such-compiler",), ("false",)])
def test_without_a_compiler_it_is_not_taken(command, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled, "COMPILER", command)
    compiled.library.cache_clear()
    try:
        job = make_job()
        assert command[0] in chain.unsupported(job)
        answer = Executors().execute(job, "chain", automatic=True)
        assert answer.executor != "chain" and len(answer.clients) == 4
    finally:
        compiled.library.cache_clear()


def test_without_its_source_it_is_not_taken():
    with pytest.raises(compiled.NotCompiledError, match="not among"):
        compiled.library("nothing.c", torch.float32)


def test_it_is_built_once(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path))
    compiled.library.cache_clear()
    compiled.library("chain.c", torch.float32)
    compiled.library.cache_clear()
    (built,) = tmp_path.glob("chain-*.so")
    monkeypatch.setattr(compiled, "_built", None)  # a second build would fail
    assert compiled.library("chain.c", torch.float32)._name == str(built)
    compiled.library.cache_clear()
