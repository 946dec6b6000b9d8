"""The vmap executor: many clients' models side by side, each with parameters of its own.

For local steps, where clients' parameters differ, and for models the fused executor cannot take. Clients are sorted by
their number of steps, so that those who are done drop out of the stack, and a shorter batch is padded with weight zero.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from fedbatch.aggregation.sums import Sum
from fedbatch.clients.job import Executor, Job, contribution
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.parts import part_sizes
from fedbatch.clients.work import takes_steps
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.executors import fused, side_by_side, stacked_layers
from fedbatch.executors.client_layers import ClientLayers, repeated
from fedbatch.executors.footprint import example_bytes
from fedbatch.executors.functional import batch, loss_gradient, names
from fedbatch.executors.low_rank import pays
from fedbatch.executors.pool_first import pool_first
from fedbatch.executors.updates import FlatUpdates, ParameterUpdates, Stack
from fedbatch.models.dropout import own_generators
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.wire.messages import Contribution

STACK_BYTES = 8 * 2**20
"""Parameters of the clients side by side on a CPU. Each step reads and writes them all, so they should stay near the
cache."""
COPIES = 4
"""Vectors of parameters that a client has at once, where memory is counted: parameters, gradients and their sums."""
SPREAD = 2
"""Batches side by side differ by no more than this factor, as each is padded to the largest."""


class Clients(Protocol):
    """Models of many clients who take local steps, with parameters of their own."""

    def step(
        self, loss: Loss, x: Tensor, y: Tensor, share: Tensor, lr: float, pull: float, keys: Tensor | None
    ) -> Tensor:
        """Take one step for the first clients, as `ClientLayers.step`; their mean losses before it."""
        ...

    def updates(self) -> ParameterUpdates:
        """Start minus end of every client."""
        ...


Start = Callable[[FlatModel, Tensor, int, int], Clients]
"""Makes clients of a model, the global parameters (d,), their number and that of their steps."""


def unsupported(job: Job) -> str | None:
    """Why the vmap executor cannot do this work, or None if nothing speaks against it."""
    if not getattr(job.work, "is_plain_sgd", False) and not takes_steps(job.work):
        return f"it does not know {type(job.work).__name__}"
    if job.model.buffers.numel():
        return "running statistics (batch norm) are written in place"
    if not getattr(job.loss, "per_example", False):
        return "shorter batches are padded, which a loss over the whole batch would see"
    return None


def forms(job: Job) -> list[list[Executor]]:
    """Ways to run a job, the fastest first; each with those it goes over to where they are cheaper."""
    if not getattr(job.work, "is_plain_sgd", False):
        return [[by_steps]]
    if job.work.is_gradient or not stacked_layers.knows(job.model) or fused.unsupported_model(job.model, job.x[:2]):
        return [[by_function]]
    return [[low_rank, stacked], [stacked], [by_function]]


def best(job: Job) -> Contribution:
    """Run the clients of ``job`` by the first of its `forms`."""
    return forms(job)[0][0](job)


def low_rank(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, large Linear layers by factors where that is cheaper."""
    factored, kept = _factored(job)
    return _run(job, partial(ClientLayers, factored=factored), kept)


def stacked(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, every layer by stacks; all layers must be known."""
    return _run(job, ClientLayers, job.params.numel())


def by_function(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, the whole model by torch.func."""
    return _run(job, ClientModels, job.params.numel())


def by_steps(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, by the work's own steps."""
    vectors = 1 + sum(len(job.sizes(kind)) for kind in ("extras", "own", "shared"))
    return _run(job, ClientModels, vectors * job.params.numel())


def _factored(job: Job) -> tuple[set[nn.Linear], int]:
    """The Linear layers for which factors are cheaper than weights, and how many numbers are then kept of a client."""
    steps, batch = int(np.count_nonzero(job.draw.counts, axis=1).max()), int(job.draw.counts.max())
    linear = [m for m in job.model.module.modules() if type(m) is nn.Linear and m.weight.requires_grad]
    layers = {m for m in linear if pays(m, batch, steps)}  # if each example were one position; there may be more
    kept = job.params.numel()
    if not layers:
        return layers, kept
    with own_generators(job.model.is_random), torch.no_grad(), fused.Capture(job.model.module) as capture:
        job.model.module(job.x[:1].clone())
    for layer, output in zip(capture.layers, capture.outputs, strict=True):
        rows = batch * output.shape[:-1].numel()
        if layer in layers and pays(layer, rows, steps):
            kept += rows * steps * (layer.in_features + layer.out_features) - layer.weight.numel()
        else:
            layers.discard(layer)
    return layers, kept


def _run(job: Job, start: Start, kept: int) -> Contribution:
    total, units = Sum(job.params), Sum(job.params if job.cosine else job.params[:0])
    more = Sum(job.params.new_zeros(sum(job.sizes("extras").values())))
    order, inner, losses = [], [], []
    for rows in chunks(job, kept):
        updates: FlatUpdates | ParameterUpdates
        with pool_first(job.model.module):
            if not getattr(job.work, "is_plain_sgd", False):
                updates, loss, extras = side_by_side.local_steps(job, rows)
                more.add(to_device(job.weights[rows], extras.device).to(extras) @ extras, 1.0)
            elif job.work.is_gradient:
                updates, loss = gradients(job, rows)
            else:
                updates, loss = local_steps(job, rows, start)
        if job.outbox is not None:
            loss = job.put(rows, updates.whole(), loss)
        products = updates.products() if job.clip is None else updates.clipped(job.clip)  # (K, S, S)
        total.add(updates.sum(to_device(job.weights[rows], job.params.device).to(job.params)), 1.0)
        if job.cosine:
            sq_norms = products.sum(dim=(1, 2))
            units.add(updates.sum(torch.where(sq_norms > 0, sq_norms.rsqrt(), 0).to(job.params)), 1.0)
        inner.append(products)
        losses.append(loss)
        order.append(rows)
    return contribution(job, total.value(), units.value(), torch.cat(inner), torch.cat(losses), order, more.value())


def chunks(job: Job, kept: int) -> Iterator[Ints]:
    """Rows of the job, most steps first and then large batches first, as many as fit and are of like size.

    Args:
        job: the job.
        kept: numbers that are kept of a client.
    """
    widths = job.draw.counts.max(axis=1, initial=0)
    rows = np.lexsort((-widths, -np.count_nonzero(job.draw.counts, axis=1)))
    size = clients_at_once(job, kept, int(widths.max(initial=0)))
    start = 0
    for end in range(1, len(rows) + 1):
        largest, smallest = widths[rows[start:end]].max(), widths[rows[start : end + 1]].min()
        if end == len(rows) or end - start == size or max(largest, widths[rows[end]]) > SPREAD * smallest:
            yield rows[start:end]
            start = end


def clients_at_once(job: Job, kept: int, width: int) -> int:
    """How many clients with batches of ``width`` examples are computed side by side, ``kept`` numbers of each."""
    size = kept * job.params.element_size()
    if job.memory_bytes is None:
        return max(1, STACK_BYTES // size)
    return max(1, int(job.memory_bytes // (COPIES * size + width * example_bytes(job))))


def gradients(job: Job, rows: Ints) -> tuple[FlatUpdates, Tensor]:
    """FedSGD: gradients of each client's parts, weighted to add up to the client's own, and losses (K,)."""
    counts = job.draw.counts[rows, 0]
    sizes = part_sizes(counts, job.halves)  # (K, S)
    starts = np.cumsum(sizes, axis=1) - sizes
    column = np.arange(sizes.max())
    columns = np.minimum(starts[:, :, None] + column, job.draw.positions.shape[2] - 1)
    keys = np.repeat(job.step_seeds(rows, 0), sizes.shape[1])
    index = np.take_along_axis(job.draw.positions[rows, 0][:, None, :], columns, axis=2)
    share = np.where(column < sizes[:, :, None], 1 / counts[:, None, None], 0.0)
    flat = [t.reshape(sizes.size, -1) for t in (index, share)]
    params = dict(zip(names(job.model), job.model.split(job.params), strict=True))
    in_dims = (None, 0, 0, 0, 0, 0)
    places = (to_device(t, job.params.device) for t in (keys, starts.ravel()))
    gradients, losses = vmap(loss_gradient(job.model, job.loss), in_dims)(params, *batch(job, *flat), *places)
    joined = job.model.join(list(gradients.values()))
    return FlatUpdates(joined.view(*sizes.shape, -1), job.model.layer_sizes), losses.view(sizes.shape).sum(dim=1)


def local_steps(job: Job, rows: Ints, start: Start) -> tuple[ParameterUpdates, Tensor]:
    """Local SGD: start minus end of each client, and losses (K,). Rows are sorted by steps, most first."""
    work: LocalSGD = job.work  # type: ignore[assignment]
    first, counts, positions = side_by_side.own_steps(job, rows)
    steps = int(np.count_nonzero(counts[0]))
    clients = start(job.model, job.params, len(rows), steps)
    losses = job.params.new_zeros(len(rows))
    for step in range(steps):
        active = int(np.count_nonzero(counts[:, step]))
        taken = counts[:active, step]
        share = (np.arange(positions.shape[2]) < taken[:, None]) / taken[:, None]
        x, y, weights = batch(job, positions[:active, step], share)
        keys = None
        if job.model.is_random:
            keys = to_device(job.step_seeds(rows[:active], first[:active, step]), job.params.device)
        loss = clients.step(job.loss, x, y, weights, work.lr, work.lr * work.proximal, keys)
        losses[:active] += loss * to_device(taken, losses.device).to(losses)
    updates = clients.updates()
    total = to_device(counts.sum(axis=1), losses.device).to(losses)
    return updates, losses / total


class ClientModels:
    """Any module with parameters of many clients, by torch.func."""

    def __init__(self, model: FlatModel, params: Tensor, clients: int, steps: int):
        self.model, self._start = model, model.split(params)
        self._stacks = [repeated(p, clients) for p in self._start]

    def step(
        self, loss: Loss, x: Tensor, y: Tensor, share: Tensor, lr: float, pull: float, keys: Tensor | None
    ) -> Tensor:
        """As `ClientLayers.step`."""
        own = dict(zip(names(self.model), [stack[: len(share)] for stack in self._stacks], strict=True))
        keys = torch.zeros(len(share), dtype=torch.int64, device=x.device) if keys is None else keys
        gradients, losses = vmap(loss_gradient(self.model, loss))(own, x, y, share, keys, torch.zeros_like(keys))
        for start, (name, gradient) in zip(self._start, gradients.items(), strict=True):
            if pull:
                own[name].lerp_(start, pull)
            own[name].sub_(gradient, alpha=lr)
        return losses

    def updates(self) -> ParameterUpdates:
        """Start minus end of every client; the stacks are spent."""
        pairs = zip(self._start, self._stacks, strict=True)
        return ParameterUpdates(self.model, [Stack(torch.sub(start, p, out=p)) for start, p in pairs])
