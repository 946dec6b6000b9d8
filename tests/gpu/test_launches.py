"""On a GPU nothing is launched, copied or waited for once a client: eight cost as many calls as four."""

from collections import Counter

import numpy as np
import pytest
import torch

from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.executors.choose import EXECUTORS, UNSUPPORTED
from fedbatch.losses import FLSD53, Brier, CrossEntropy, Focal, FrozenBins
from fedbatch.models.convolutional import cnn
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import mlp
from fedbatch.models.resnet import resnet18
from fedbatch.models.transformer import gpt
from tests.virtual_gpu import VirtualGpu

MODELS = {
    "mlp": lambda: mlp((1, 8, 8), 10, 8, 1),
    "cnn": lambda: cnn((1, 8, 8), 10, 4, 8, "none", 2),
    "cnn_group": lambda: cnn((1, 8, 8), 10, 4, 8, "group", 2),
    "resnet18": lambda: resnet18((3, 8, 8), 10, 2, "group", 2),
    "gpt": lambda: gpt((6,), 20, layers=1, width=8, heads=2, tie_weights=False),
}
SHAPES = {"mlp": (1, 8, 8), "cnn": (1, 8, 8), "cnn_group": (1, 8, 8), "resnet18": (3, 8, 8), "gpt": (6,)}
WORKS = {"fedsgd": FedSGD(), "local": LocalSGD(lr=0.1), "proximal": LocalSGD(lr=0.1, proximal=0.1)}
OPTIONS = {
    "plain": {},
    "halves": {"halves": True, "cosine": True},
    "clip": {"clip": Clip(0.1)},
    "per_layer": {"clip": Clip(0.1, True)},
}
CASES = [
    (model, work, executor, option)
    for model in MODELS
    for work in WORKS
    for executor in ("fused", "vmap")
    for option in OPTIONS
    if (executor == "vmap" or work == "fedsgd") and (option != "halves" or work == "fedsgd")
]
FAST = [("mlp", "fedsgd", "fused", "halves"), ("mlp", "proximal", "vmap", "clip"), ("gpt", "fedsgd", "fused", "clip")]
BUDGET = {("mlp", "fedsgd", "fused"): 1, ("mlp", "local", "vmap"): 3, ("gpt", "fedsgd", "fused"): 1}
"""Waits of a whole job: for norms and losses together, and for each low-rank layer whether to trust its length."""


def job_of(model, work, clients, loss, uneven, **options):
    torch.manual_seed(0)
    flat = FlatModel(MODELS[model](), "cuda", channels_last=True)
    shape = SHAPES[model]
    x = torch.randint(20, (50, *shape)) if model == "gpt" else torch.randn(50, *shape)
    y = torch.randint(20 if model == "gpt" else 10, (50, *(shape if model == "gpt" else ())))
    steps = 1 if WORKS[work].is_gradient else 2
    counts = np.full((clients, steps), 4)
    counts[::2] = 3 if uneven else 4
    draw = Draw(np.random.default_rng(0).integers(0, 50, (clients, steps, 4)), counts)
    return Job(
        model=flat,
        loss=loss,
        x=x.to("cuda"),
        y=y.to("cuda"),
        work=WORKS[work],
        clients=np.arange(clients),
        draw=draw,
        weights=draw.num_examples.astype(float),
        params=flat.params.clone(),
        buffers=flat.buffers.clone(),
        memory_bytes=2**33,
        **options,
    )


def counted(model, work, executor, clients, loss=None, uneven=False, **options):
    """Launches and waits of a job, each by line."""
    with VirtualGpu().active() as gpu:
        job = job_of(model, work, clients, loss or CrossEntropy(), uneven, **options)
        if reason := UNSUPPORTED[executor](job):
            pytest.skip(reason)
        EXECUTORS[executor](job)  # what is found out once
        gpu.reset()
        EXECUTORS[executor](job)
    return by_line(gpu.launches), by_line(gpu.waits)


def by_line(counter):
    found = Counter()
    for (_, line), count in counter.items():
        found[line] += count
    return found


def compare(*case, **options):
    (launched, waited), (launched_more, waited_more) = (counted(*case, clients=n, **options) for n in (4, 8))
    assert waited_more - waited == Counter(), "waits grow with clients"
    assert launched_more - launched == Counter(), "launches grow with clients"


@pytest.mark.parametrize("model, work, executor, option", FAST)
def test_calls_do_not_grow_with_clients(model, work, executor, option):
    compare(model, work, executor, uneven=True, **OPTIONS[option])


@pytest.mark.slow
@pytest.mark.parametrize("model, work, executor, option", CASES)
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
def test_no_calls_grow_with_clients(model, work, executor, option, uneven):
    compare(model, work, executor, uneven=uneven, **OPTIONS[option])


@pytest.mark.parametrize(
    "loss", [Brier(), FLSD53(), Focal(2.0), FrozenBins([0.2, 0.8])], ids=lambda x: type(x).__name__
)
@pytest.mark.parametrize("executor, work", [("fused", "fedsgd"), ("vmap", "local")])
def test_no_loss_waits_for_a_client(loss, executor, work):
    compare("mlp", work, executor, loss=loss)


@pytest.mark.parametrize("model, work, executor", BUDGET)
def test_waits_of_a_job_stay_within_their_budget(model, work, executor):
    _, waits = counted(model, work, executor, 8, uneven=True)
    assert waits.total() <= BUDGET[model, work, executor], waits
