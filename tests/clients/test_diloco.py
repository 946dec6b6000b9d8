"""DiLoCo is AdamW inside, with moments that are kept, and Nesterov outside: the parts, and the case that is known."""

import numpy as np
import torch

from fedbatch.clients import LocalAdam
from tests.clients.quadratic import EXAMPLES, SIZE, Quadratic
from tests.conftest import run

OUTSIDE = ("server_optimizer=sgd", "server_optimizer.lr=0.05", "server_optimizer.momentum=0.9")
OUTSIDE = (*OUTSIDE, "server_optimizer.nesterov=true", "controller=fixed", "client_batch_size=null", "executor=loop")


def test_with_one_inner_step_of_sgd_it_is_fedsgd_with_that_outer_optimizer(make_config):
    inner = ("client_work=local_momentum", "client_work.momentum=0", "client_work.lr=1")
    inner = (*inner, "client_work.epochs=null", "client_work.steps=1")
    *_, diloco = run(make_config(*inner, *OUTSIDE, "rounds=5", folder="diloco"))
    *_, fedsgd = run(make_config("client_work=fedsgd", *OUTSIDE, "rounds=5", folder="fedsgd"))
    torch.testing.assert_close(diloco.params, fedsgd.params, rtol=1e-5, atol=1e-6)


def test_the_experiment_is_the_published_algorithm():
    """Algorithm 1 of Douillard et al. (2023) by torch's own optimizers: each worker keeps its AdamW."""
    problem, workers, steps = Quadratic(), range(4), 5
    theta = torch.zeros(SIZE, dtype=torch.float64, requires_grad=True)
    outer = torch.optim.SGD([theta], lr=0.7, momentum=0.9, nesterov=True)
    copies = [theta.detach().clone().requires_grad_() for _ in workers]
    inner = [torch.optim.AdamW([w], lr=0.05, weight_decay=0.1) for w in copies]
    for _ in range(6):
        for k, w in enumerate(copies):
            w.data.copy_(theta.data)
            x, y = torch.from_numpy(problem.x[k]), torch.from_numpy(problem.y[k])
            for _ in range(steps):
                inner[k].zero_grad()
                ((x @ w - y).square().sum() / 2 / EXAMPLES).backward()
                inner[k].step()
        theta.grad = torch.stack([theta.data - w.data for w in copies]).mean(dim=0)
        outer.step()
    work = LocalAdam(0.05, None, steps, weight_decay=0.1, decoupled_weight_decay=True, keep=True)
    got = problem.run(work, [list(workers)] * 6, outer=lambda p: torch.optim.SGD(p, 0.7, momentum=0.9, nesterov=True))
    np.testing.assert_allclose(got[-1], theta.detach().numpy(), rtol=1e-9)
