"""Whatever people bring as a model: an executor gives the loop's numbers, or says in one line why it does not."""

import numpy as np
import pytest
import torch

from fedbatch.clients.clip import Clip
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.per_example import as_examples
from fedbatch.core.errors import RunFailedError
from fedbatch.data.partition import IndexPartition
from fedbatch.executors.choose import EXECUTORS, Executors
from fedbatch.executors.loop import loop
from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel
from fedbatch.models.trial import Wanted, try_out
from tests.executors.zoo import IMAGE, IMAGES, TEXT, TEXTS

SIZES = np.array([7, 5, 9, 6, 2, 8])
BATCH = np.array([4, 4, 4, 4, 4, 4])
WORKS = {"fedsgd": FedSGD(), "local_sgd": LocalSGD(lr=0.1, epochs=2)}
TOLERANCE = 1e-5


def make_job(name, work):
    """Six clients, one with fewer examples than the batch; under "examples" each example is clipped on its own."""
    is_text = name in TEXTS
    rng = np.random.default_rng(0)
    if is_text:
        x, y = rng.integers(7, size=(2, SIZES.sum(), *TEXT))
    else:
        x, y = rng.normal(size=(SIZES.sum(), *IMAGE)).astype(np.float32), rng.integers(3, size=SIZES.sum())
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    torch.manual_seed(1)
    model = FlatModel((TEXTS if is_text else IMAGES)[name](), channels_last=True, changing=())
    try_out(model, CrossEntropy(), x[:2], y[:2], Wanted(lambda labels: (*labels, 7 if is_text else 3)), [2])
    model.module.train()
    partition = IndexPartition.from_assignment(np.repeat(np.arange(6), SIZES))
    clients, clip = np.arange(6), None
    if work == "examples":
        clip = Clip(0.7)
        kind, clients, draw, weights = as_examples(np.arange(12), clip)
    else:
        kind = WORKS[work]
        draw = kind.draw(partition, clients, BATCH, seed=1, round_=2)
        weights = draw.num_examples.astype(float)
    params, buffers = model.params.clone(), model.buffers.clone()
    job = Job(model, CrossEntropy(), x, y, kind, clients, draw, weights, params, buffers, clip=clip)
    seeds = np.random.default_rng(5).integers(2**62, size=len(clients))
    return Job(**vars(job) | {"seeds": seeds, "halves": work == "fedsgd" and not model.examples_meet})


def difference(expected, got):
    """Largest relative difference of sum, norms and losses."""
    update = float((expected.update_sum - got.update_sum).norm() / expected.update_sum.norm())
    columns = [np.abs(a - b).max() / np.abs(a).max() for a, b in pairs(expected, got)]
    return max([update, *columns])


def pairs(expected, got):
    for field in ("sq_norms", "losses", "half_dots", "half_sq_diffs"):
        a, b = getattr(expected, field), getattr(got, field)
        assert a.shape == b.shape, field
        if len(a):
            yield (a, b) if field != "half_dots" else (a + expected.sq_norms, b + expected.sq_norms)


ALONE = {"batch norm", "batch norm, cumulative", "residual net, batch norm"}  # examples cannot be computed alone


SLOW = [pytest.param(work, marks=pytest.mark.slow) for work in ("local_sgd", "examples")]


@pytest.mark.parametrize("work", ["fedsgd", *SLOW])
@pytest.mark.parametrize("name", [*IMAGES, *TEXTS])
def test_an_executor_agrees_with_the_loop_or_says_why_not(name, work, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path))
    if work == "examples" and name in ALONE | {"batch norm without statistics", "spectral norm", "statistics replaced"}:
        return  # refused under privacy before any executor is asked
    job = make_job(name, work)
    if name in ALONE | {"batch norm without statistics"} and work == "local_sgd":
        return  # the last batch of a client has one example, which the trial before a run refuses
    expected = loop(job)
    executors, right = Executors(), ["loop"]
    for executor in ("chain", "fused", "vmap", "ghost"):
        reason = executors.unusable(executor, job)
        if reason is None:
            right.append(executor)
            assert difference(expected, executors.execute(job, executor)) < TOLERANCE, executor
        else:
            assert len(reason.splitlines()) == 1 and 5 < len(reason) < 300
            with pytest.raises(RunFailedError, match="use executor=auto"):
                executors.execute(job, executor)
    got = executors.execute(job, "auto")
    assert got.executor in right and difference(expected, got) < TOLERANCE
    assert set(right) <= set(EXECUTORS)


MUST_BE_FAST = {
    "fedsgd": ("perceptron", "dropout", "functional dropout", "convolutions", "head outside the loss"),
    "local_sgd": ("perceptron", "dropout", "functional dropout", "nanoGPT with dropout", "output map by function"),
    "examples": ("dropout", "dropout of nothing", "layer norm", "legacy weight norm"),
}


@pytest.mark.parametrize("work", MUST_BE_FAST)
def test_the_comparison_rules_out_no_more_than_it_must(work):
    for name in MUST_BE_FAST[work]:
        job = make_job(name, work)
        fast = "fused" if work != "local_sgd" and name != "legacy weight norm" else "vmap"
        assert Executors().unusable(fast, job) is None, name


def test_a_fault_behind_a_layer_that_starts_at_zero_is_seen():
    job = make_job("zero head hides it", "fedsgd")
    assert difference(loop(job), EXECUTORS["fused"](job)) < TOLERANCE, "else the start itself would show it"
    assert "differs from executor=loop" in Executors().unusable("fused", job)
