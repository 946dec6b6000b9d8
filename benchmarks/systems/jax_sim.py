"""JAX: a whole round in one compiled function, written as plainly as its users would.

The round gathers the examples, runs every client, takes every client's squared norm and steps the server. Clients run
one after the other (``scan``), where XLA keeps what one client needs in the cache, or all at once (``vmap``).
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.workload import Data, Workload, build_model

# Read when JAX is imported: XLA has threads of its own, and torch's setting does not reach them.
if torch.get_num_threads() == 1:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp

Params = list[jax.Array]


def mlp(p: Params, x: jax.Array) -> jax.Array:
    """The perceptron of `benchmarks.workload`."""
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ p[0].T + p[1])
    return hidden @ p[2].T + p[3]


def cnn(p: Params, x: jax.Array) -> jax.Array:
    """The convolutional network of `benchmarks.workload`."""
    for weight, bias in ((p[0], p[1]), (p[2], p[3])):
        x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = jax.nn.relu(x + bias[None, :, None, None])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID").reshape(len(x), -1)
    return jax.nn.relu(x @ p[4].T + p[5]) @ p[6].T + p[7]


MODELS: dict[str, Callable[[Params, jax.Array], jax.Array]] = {"mlp": mlp, "cnn": cnn}


class JaxSim:
    """Rounds in one ``jit``; its squared norms (cohort,) of the last round are kept in ``squared_norms``."""

    def __init__(self, workload: Workload, data: Data, clients: Literal["scan", "vmap"] = "scan") -> None:
        self.workload, self.data = workload, data
        self.weights = [
            jnp.asarray(p.detach().numpy()) for p in build_model(workload.model, workload.seed).parameters()
        ]
        self.x, self.y = jnp.asarray(data.x.numpy()), jnp.asarray(data.y.numpy().astype(np.int32))
        work = fedsgd if workload.work == "fedsgd" else partial(local_sgd, lr=workload.learning_rate)
        step = workload.learning_rate if workload.work == "fedsgd" else 1.0
        whole = partial(
            one_round, MODELS[workload.model], work, cohort_scan if clients == "scan" else cohort_vmap, step
        )
        self._round = jax.jit(whole, donate_argnums=0)
        self.squared_norms: Any = None

    def round(self, round_: int) -> None:
        """One federated round."""
        batches = jnp.asarray(self.workload.batches(self.data, round_).numpy().astype(np.int32))
        self.weights, self.squared_norms = self._round(self.weights, self.x, self.y, batches)
        jax.block_until_ready((self.weights, self.squared_norms))

    def params(self) -> Tensor:
        """Parameters after the rounds so far."""
        return torch.cat([torch.from_numpy(np.array(weight)).reshape(-1) for weight in self.weights])


def one_round(model: Any, work: Any, cohort: Any, step: float, p: Params, x: Any, y: Any, batches: Any) -> Any:
    """Parameters after a round, and squared norms of the clients' updates."""

    def loss(p: Params, index: jax.Array) -> jax.Array:
        logits = model(p, x[index])
        return (jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[index][:, None], 1)[:, 0]).mean()

    mean, squares = cohort(lambda steps: work(jax.grad(loss), p, steps), p, batches)
    return [w - step * m for w, m in zip(p, mean, strict=True)], squares


def fedsgd(gradient: Any, p: Params, steps: jax.Array) -> Params:
    """One gradient."""
    return gradient(p, steps[0])


def local_sgd(gradient: Any, p: Params, steps: jax.Array, lr: float) -> Params:
    """Start minus end of some steps."""

    def step(q: Params, index: jax.Array) -> tuple[Params, None]:
        return [w - lr * g for w, g in zip(q, gradient(q, index), strict=True)], None

    return [w - v for w, v in zip(p, jax.lax.scan(step, p, steps)[0], strict=True)]


def cohort_scan(client: Any, p: Params, batches: jax.Array) -> Any:
    """Mean update and squared norms, one client after the other."""

    def add(total: Params, steps: jax.Array) -> tuple[Params, jax.Array]:
        update = client(steps)
        return [t + u for t, u in zip(total, update, strict=True)], sum((u**2).sum() for u in update)

    total, squares = jax.lax.scan(add, [jnp.zeros_like(w) for w in p], batches)
    return [t / len(batches) for t in total], squares


def cohort_vmap(client: Any, p: Params, batches: jax.Array) -> Any:
    """Mean update and squared norms, all clients at once."""
    updates = jax.vmap(client)(batches)
    squares = sum((u.reshape(len(u), -1) ** 2).sum(axis=1) for u in updates)
    return [u.mean(axis=0) for u in updates], squares
