"""The vmap executor: many clients' models side by side, each with parameters of its own.

For local steps, where clients' parameters differ, and for models the fused executor cannot take. Clients are sorted by
their number of steps, so that those who are done drop out of the stack, and a shorter batch is padded with weight zero.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedbatch.aggregation.sums import Sum
from fedbatch.clients.job import Job, contribution
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.parts import Floats, inner_products, part_sizes
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.executors import fused, stacked_layers
from fedbatch.executors.footprint import example_bytes, model_bytes
from fedbatch.models.dropout import keyed_dropout
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.wire.messages import Contribution

STACK_BYTES = 8 * 2**20
"""Parameters of the clients side by side on a CPU. Each step reads and writes them all, so they should stay near the
cache."""
COPIES = 4
"""Vectors of parameters that a client has at once, where memory is counted: parameters, gradients and their sums."""
SPREAD = 2
"""Batches side by side differ by no more than this factor, as each is padded to the largest."""

Step = Callable[..., Tensor]


def unsupported(job: Job) -> str | None:
    """Why the vmap executor cannot do this work, or None if nothing speaks against it."""
    if not getattr(job.work, "is_plain_sgd", False):
        return f"it does not know {type(job.work).__name__}"
    if job.model.buffers.numel():
        return "running statistics (batch norm) are written in place"
    if not getattr(job.loss, "per_example", False):
        return "shorter batches are padded, which a loss over the whole batch would see"
    return None


def stacked(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, in chunks; local steps layer by layer where all layers are known."""
    known = not job.work.is_gradient and stacked_layers.knows(job.model)
    if known and fused.unsupported_model(job.model, job.x[:2]) is None:
        return _run(job, stacked_layers.sgd_step)
    return by_function(job)


def by_function(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, the whole model by torch.func."""
    return _run(job, _functional_step)


def _run(job: Job, take_step: Step) -> Contribution:
    total, units = Sum(job.params), Sum(job.params if job.cosine else job.params[:0])
    order, inner, losses = [], [], []
    for rows in chunks(job):
        parts, loss = gradients(job, rows) if job.work.is_gradient else local_steps(job, rows, take_step)
        updates = parts.sum(dim=1) if parts.shape[1] > 1 else parts[:, 0]  # (K, d); a view where that is enough
        if job.clip is None:
            products = inner_products(parts)  # (K, S, S)
        else:
            factors, squares = job.clip(job.model.layer_sq_norms(updates))
            for part, factor in zip(updates.split(job.model.layer_sizes, dim=1), factors, strict=True):
                part *= factor[:, None]
            products = squares[:, None, None]
        total.add(to_device(job.weights[rows], updates.device).to(updates) @ updates, 1.0)
        if job.cosine:
            sq_norms = products.sum(dim=(1, 2))
            units.add(torch.where(sq_norms > 0, sq_norms.rsqrt(), 0).to(updates) @ updates, 1.0)
        inner.append(products)
        losses.append(loss)
        order.append(rows)
    return contribution(job, total.value(), units.value(), torch.cat(inner), torch.cat(losses), order)


def chunks(job: Job) -> Iterator[Ints]:
    """Rows of the job, most steps first and then large batches first, as many as fit and are of like size."""
    widths = job.draw.counts.max(axis=1, initial=0)
    rows = np.lexsort((-widths, -np.count_nonzero(job.draw.counts, axis=1)))
    size = clients_at_once(job, int(widths.max(initial=0)))
    start = 0
    for end in range(1, len(rows) + 1):
        largest, smallest = widths[rows[start:end]].max(), widths[rows[start : end + 1]].min()
        if end == len(rows) or end - start == size or max(largest, widths[rows[end]]) > SPREAD * smallest:
            yield rows[start:end]
            start = end


def clients_at_once(job: Job, width: int) -> int:
    """How many clients with batches of ``width`` examples are computed side by side."""
    if job.memory_bytes is None:
        return max(1, STACK_BYTES // model_bytes(job))
    return max(1, int(job.memory_bytes // (COPIES * model_bytes(job) + width * example_bytes(job))))


def gradients(job: Job, rows: Ints) -> tuple[Tensor, Tensor]:
    """FedSGD: gradients of each client's parts (K, S, d), weighted to add up to the client's own, and losses (K,)."""
    counts = job.draw.counts[rows, 0]
    sizes = part_sizes(counts, job.halves)  # (K, S)
    starts = np.cumsum(sizes, axis=1) - sizes
    column = np.arange(sizes.max())
    columns = np.minimum(starts[:, :, None] + column, job.draw.positions.shape[2] - 1)
    keys = np.repeat(job.step_seeds(rows, 0), sizes.shape[1])
    index = np.take_along_axis(job.draw.positions[rows, 0][:, None, :], columns, axis=2)
    share = np.where(column < sizes[:, :, None], 1 / counts[:, None, None], 0.0)
    flat = [t.reshape(sizes.size, -1) for t in (index, share)]
    params = dict(zip(_names(job.model), job.model.split(job.params), strict=True))
    in_dims = (None, 0, 0, 0, 0, 0)
    places = (to_device(t, job.params.device) for t in (keys, starts.ravel()))
    gradients, losses = vmap(_loss_gradient(job.model, job.loss), in_dims)(params, *_batch(job, *flat), *places)
    joined = job.model.join(list(gradients.values()))
    return joined.view(*sizes.shape, -1), losses.view(sizes.shape).sum(dim=1)


def local_steps(job: Job, rows: Ints, take_step: Step) -> tuple[Tensor, Tensor]:
    """Local SGD: start minus end of each client (K, 1, d), and losses (K,). Rows are sorted by steps, most first."""
    work: LocalSGD = job.work  # type: ignore[assignment]
    first = np.argsort(job.draw.counts[rows] == 0, axis=1, kind="stable")  # a client's own steps, without gaps
    counts = np.take_along_axis(job.draw.counts[rows], first, axis=1)
    positions = np.take_along_axis(job.draw.positions[rows, :, : counts.max()], first[:, :, None], axis=1)
    params = job.params.repeat(len(rows), 1)
    stacks = job.model.split(params)
    losses = params.new_zeros(len(rows))
    for step in range(int(np.count_nonzero(counts[0]))):
        active = int(np.count_nonzero(counts[:, step]))
        taken = counts[:active, step]
        share = (np.arange(positions.shape[2]) < taken[:, None]) / taken[:, None]
        # The proximal pull is of the parameters before the step, as the gradient is.
        pull = (params[:active] - job.params) * (work.lr * work.proximal) if work.proximal else None
        x, y, weights = _batch(job, positions[:active, step], share)
        keys = to_device(job.step_seeds(rows[:active], first[:active, step]), params.device)
        loss = take_step(job.model, [s[:active] for s in stacks], job.loss, x, y, weights, work.lr, keys)
        if pull is not None:
            params[:active] -= pull
        losses[:active] += loss * to_device(taken, losses.device).to(losses)
    total = to_device(counts.sum(axis=1), losses.device).to(losses)
    return params.neg_().add_(job.params)[:, None, :], losses / total  # in place: the stack is the largest thing here


def _functional_step(
    model: FlatModel, stacks: Sequence[Tensor], loss: Loss, x: Tensor, y: Tensor, share: Tensor, lr: float, keys: Tensor
) -> Tensor:
    """`stacked_layers.sgd_step` for any module, by torch.func."""
    params = dict(zip(_names(model), stacks, strict=True))
    gradients, losses = vmap(_loss_gradient(model, loss))(params, x, y, share, keys, torch.zeros_like(keys))
    for name, gradient in gradients.items():
        params[name].sub_(gradient, alpha=lr)
    return losses


def _loss_gradient(model: FlatModel, loss: Loss) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    # Fused attention has no batching rule, on a GPU for its backward alone: vmap would call it for each client in turn.
    @sdpa_kernel(SDPBackend.MATH)
    def weighted_loss(
        params: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor, key: Tensor, first: Tensor
    ) -> Tensor:
        with keyed_dropout(key, len(share), first, several=True) if model.is_random else nullcontext():
            return (loss(functional_call(model.module, params, (x,)), y, reduction="none") * share).sum()

    return grad_and_value(weighted_loss)


def _batch(job: Job, index: Ints, share: Floats) -> tuple[Tensor, Tensor, Tensor]:
    device = job.params.device
    flat = to_device(index.ravel(), device)
    x = job.x.index_select(0, flat).view(*index.shape, *job.x.shape[1:])
    y = job.y.index_select(0, flat).view(*index.shape, *job.y.shape[1:])
    return x, y, to_device(share, device).to(job.params)


def _names(model: FlatModel) -> list[str]:
    return [name for name, p in model.module.named_parameters() if p.requires_grad]
