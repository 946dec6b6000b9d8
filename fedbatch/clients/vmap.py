"""The vmap executor: many clients' models side by side, each with parameters of its own.

For local steps, where clients' parameters differ, and for models the fused executor cannot take. Clients are sorted by
their number of steps, so that those who are done drop out of the stack, and a shorter batch is padded with weight zero.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from fedbatch.aggregate import Sum
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import ClientWork, Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.parts import Floats, half_columns, part_sizes
from fedbatch.keys import Ints
from fedbatch.messages import Contribution
from fedbatch.models.flat import FlatModel, Loss

STACK_BYTES = 8 * 2**20
"""Parameters of the clients side by side. Each step reads and writes them all, so they should stay near the cache."""


def unsupported(work: ClientWork, loss: Loss, model: FlatModel, shape: tuple[int, ...]) -> str | None:
    """Why the vmap executor cannot do this work, or None if it can."""
    if not isinstance(work, FedSGD | LocalSGD):
        return f"it does not know {type(work).__name__}"
    if model.buffers.numel():
        return "running statistics (batch norm) are written in place"
    if model.has_dropout:
        return "dropout draws anew when parameters are stacked"
    if not getattr(loss, "per_example", False):
        return "shorter batches are padded, which a loss over the whole batch would see"
    return None


def stacked(job: Job) -> Contribution:
    """Run the clients of ``job`` side by side, in chunks."""
    total, units = Sum(job.params), Sum(job.params)
    order = np.argsort(-np.count_nonzero(job.draw.counts, axis=1), kind="stable")
    inner, losses = [], []
    size = max(1, STACK_BYTES // (job.params.numel() * job.params.element_size()))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        parts, loss = _gradients(job, rows) if job.work.is_gradient else _local_steps(job, rows)
        products = parts @ parts.mT  # (K, S, S)
        updates = parts.sum(dim=1)  # (K, d)
        total.add(torch.from_numpy(job.weights[rows]).to(updates) @ updates, 1.0)
        if job.cosine:
            sq_norms = products.sum(dim=(1, 2))
            units.add(torch.where(sq_norms > 0, sq_norms.rsqrt(), 0) @ updates, 1.0)
        inner.append(products)
        losses.append(loss)
    back = np.argsort(order, kind="stable")
    by_client = torch.cat(inner).double().cpu().numpy()[back]
    dots, diffs = half_columns(by_client, job.draw.counts[:, 0])
    return Contribution(
        update_sum=total.value(),
        buffer_sum=job.buffers.clone(),
        unit_sum=units.value() if job.cosine else job.params.new_zeros(0),
        clients=job.clients,
        weights=job.weights,
        num_examples=job.draw.num_examples,
        sq_norms=np.maximum(by_client.sum(axis=(1, 2)), 0.0),
        losses=torch.cat(losses).double().cpu().numpy()[back],
        half_dots=dots,
        half_sq_diffs=diffs,
        excluded=np.zeros(0, np.int64),
    )


def _gradients(job: Job, rows: Ints) -> tuple[Tensor, Tensor]:
    """FedSGD: gradients of each client's parts (K, S, d), weighted to add up to the client's own, and losses (K,)."""
    counts = job.draw.counts[rows, 0]
    sizes = part_sizes(counts, job.halves)  # (K, S)
    starts = np.cumsum(sizes, axis=1) - sizes
    column = np.arange(sizes.max())
    columns = np.minimum(starts[:, :, None] + column, job.draw.positions.shape[2] - 1)
    index = np.take_along_axis(job.draw.positions[rows, 0][:, None, :], columns, axis=2)
    share = np.where(column < sizes[:, :, None], 1 / counts[:, None, None], 0.0)
    flat = [t.reshape(sizes.size, -1) for t in (index, share)]
    params = dict(zip(_names(job), job.model.split(job.params), strict=True))
    gradients, losses = vmap(_loss_gradient(job), in_dims=(None, 0, 0, 0))(params, *_batch(job, *flat))
    joined = torch.cat([_flatten(job, g) for g in gradients.values()], dim=1)
    return joined.view(*sizes.shape, -1), losses.view(sizes.shape).sum(dim=1)


def _local_steps(job: Job, rows: Ints) -> tuple[Tensor, Tensor]:
    """Local SGD: start minus end of each client (K, 1, d), and losses (K,). Rows are sorted by steps, most first."""
    work: LocalSGD = job.work  # type: ignore[assignment]
    first = np.argsort(job.draw.counts[rows] == 0, axis=1, kind="stable")  # a client's own steps, without gaps
    counts = np.take_along_axis(job.draw.counts[rows], first, axis=1)
    positions = np.take_along_axis(job.draw.positions[rows], first[:, :, None], axis=1)
    params = job.params.repeat(len(rows), 1)
    views = dict(zip(_names(job), job.model.split(params), strict=True))
    losses = params.new_zeros(len(rows))
    step_of_all = vmap(_loss_gradient(job))
    for step in range(int(np.count_nonzero(counts[0]))):
        active = int(np.count_nonzero(counts[:, step]))
        taken = counts[:active, step]
        share = (np.arange(positions.shape[2]) < taken[:, None]) / taken[:, None]
        current = {name: view[:active] for name, view in views.items()}
        gradients, loss = step_of_all(current, *_batch(job, positions[:active, step], share))
        losses[:active] += loss * torch.from_numpy(taken).to(losses)
        if work.proximal:
            params[:active] -= work.lr * work.proximal * (params[:active] - job.params)
        for name, gradient in gradients.items():
            current[name].sub_(gradient, alpha=work.lr)
    total = torch.from_numpy(counts.sum(axis=1)).to(losses)
    return params.neg_().add_(job.params)[:, None, :], losses / total  # in place: the stack is the largest thing here


def _loss_gradient(job: Job) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    def weighted_loss(params: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        return (job.loss(functional_call(job.model.module, params, (x,)), y, reduction="none") * share).sum()

    return grad_and_value(weighted_loss)


def _batch(job: Job, index: Ints, share: Floats) -> tuple[Tensor, Tensor, Tensor]:
    device = job.params.device
    flat = torch.from_numpy(index.ravel()).to(device)
    x = job.x.index_select(0, flat).view(*index.shape, *job.x.shape[1:])
    return x, job.y.index_select(0, flat).view(*index.shape, *job.y.shape[1:]), torch.from_numpy(share).to(job.params)


def _names(job: Job) -> list[str]:
    return [name for name, p in job.model.module.named_parameters() if p.requires_grad]


def _flatten(job: Job, gradient: Tensor) -> Tensor:
    """Gradients (K, *shape) as (K, size) in the order of the flat vector."""
    permuted = job.model.channels_last and gradient.dim() == 5
    return (gradient.movedim(2, -1) if permuted else gradient).flatten(1)
