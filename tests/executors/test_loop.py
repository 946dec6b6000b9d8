import copy
import warnings

import numpy as np
import pytest
import torch

from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.data.partition import IndexPartition
from fedbatch.executors.loop import loop
from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import mlp
from tests.conftest import toy_dataset

DATA = toy_dataset()
PARTITION = IndexPartition.from_assignment(np.arange(60) % 4)


def make_job(work, batch_sizes, halves=False, cosine=False, module=None):
    torch.manual_seed(0)
    model = FlatModel(module or mlp((5,), 3, width=7, depth=1).double())
    clients = np.arange(len(batch_sizes))
    draw = work.draw(PARTITION, clients, np.array(batch_sizes), seed=3, round_=1)
    return Job(
        model=model,
        loss=CrossEntropy(),
        x=torch.from_numpy(DATA.train_x).double(),
        y=torch.from_numpy(DATA.train_y),
        work=work,
        clients=clients,
        draw=draw,
        weights=draw.num_examples.astype(float),
        params=model.params.clone(),
        buffers=model.buffers.clone(),
        halves=halves,
        cosine=cosine,
    )


def plain_gradient(module, x, y):
    module = copy.deepcopy(module)
    module.zero_grad()
    torch.nn.functional.cross_entropy(module(x), y).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def test_fedsgd_is_the_sum_of_plain_gradients():
    job = make_job(FedSGD(), [3, 5, 8, 8], cosine=True)
    gradients = [plain_gradient(job.model.module, *job.batch(k, 0)) for k in range(4)]
    result = loop(job)
    torch.testing.assert_close(result.update_sum, sum(w * g for w, g in zip([3, 5, 8, 8], gradients, strict=True)))
    torch.testing.assert_close(torch.from_numpy(result.sq_norms), torch.stack([g @ g for g in gradients]))
    torch.testing.assert_close(result.unit_sum, sum(g / g.norm() for g in gradients))


def test_halves_change_nothing_but_add_their_products():
    plain, split = (loop(make_job(FedSGD(), [4, 5, 6, 7], halves=h)) for h in (False, True))
    torch.testing.assert_close(plain.update_sum, split.update_sum)
    np.testing.assert_allclose(plain.sq_norms, split.sq_norms)
    np.testing.assert_allclose(plain.losses, split.losses)
    job = make_job(FedSGD(), [4, 5, 6, 7], halves=True)
    x, y = job.batch(1, 0)
    first, second = (plain_gradient(job.model.module, x[s], y[s]) for s in (slice(0, 2), slice(2, 5)))
    assert split.half_dots[1] == pytest.approx(float(first @ second))
    assert split.half_sq_diffs[1] == pytest.approx(float((first - second).square().sum()) / (1 / 2 + 1 / 3))
    assert len(plain.half_dots) == 0


@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_local_sgd_is_torch_sgd(proximal):
    work = LocalSGD(lr=0.3, epochs=2, proximal=proximal)
    job = make_job(work, [4, 4, 4, 4])
    result = loop(job)
    total = torch.zeros_like(job.params)
    for k in range(4):
        model = FlatModel(mlp((5,), 3, width=7, depth=1).double())
        model.load(job.params, job.buffers)
        optimizer = torch.optim.SGD(model.trainable, lr=0.3)
        for step in np.flatnonzero(job.draw.counts[k]):
            x, y = job.batch(k, step)
            loss = torch.nn.functional.cross_entropy(model.module(x), y)
            loss = loss + proximal / 2 * sum(
                (p - q).square().sum() for p, q in zip(model.trainable, model.split(job.params), strict=True)
            )
            model.grads.zero_()
            loss.backward()
            optimizer.step()
        total += job.weights[k] * (job.params - model.params)
    torch.testing.assert_close(result.update_sum, total)


def test_clients_start_from_the_global_buffers():
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).double()
    job = make_job(FedSGD(), [8, 8], module=module)
    both = loop(job).buffer_sum
    alone = [loop(make_job_rows(job, k)).buffer_sum for k in range(2)]
    torch.testing.assert_close(both, alone[0] + alone[1])
    assert not torch.allclose(both / 16, job.buffers)


def make_job_rows(job, row):
    from dataclasses import replace

    keep = slice(row, row + 1)
    return replace(job, clients=job.clients[keep], draw=job.draw.select(keep), weights=job.weights[keep])


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_gradients():
    plain, compiled = (make_job(FedSGD(), [3, 5, 8, 8]) for _ in range(2))
    with warnings.catch_warnings(action="ignore"):  # of the compiler's own imports
        compiled.model.compile()
        torch.testing.assert_close(loop(compiled).update_sum, loop(plain).update_sum)
