"""The vmap executor: many clients' models side by side, each with parameters of its own.

For local steps, where clients' parameters differ, and for models the fused executor cannot take. Clients are sorted by
their number of steps, so that those who are done drop out of the stack, and a shorter batch is padded with weight zero.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedbatch.aggregate import Sum
from fedbatch.clients import fused, stacked_layers
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import ClientWork, Job, contribution
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.parts import Floats, part_sizes
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
        updates = parts.sum(dim=1) if parts.shape[1] > 1 else parts[:, 0]  # (K, d); a view where that is enough
        if job.clip is None:
            products = parts @ parts.mT  # (K, S, S)
        else:
            factors, squares = job.clip(job.model.layer_sq_norms(updates))
            for part, factor in zip(updates.split(job.model.layer_sizes, dim=1), factors, strict=True):
                part *= factor[:, None]
            products = squares[:, None, None]
        total.add(torch.from_numpy(job.weights[rows]).to(updates) @ updates, 1.0)
        if job.cosine:
            sq_norms = products.sum(dim=(1, 2))
            units.add(torch.where(sq_norms > 0, sq_norms.rsqrt(), 0) @ updates, 1.0)
        inner.append(products)
        losses.append(loss)
    back = torch.from_numpy(np.argsort(order, kind="stable")).to(job.params.device)
    return contribution(job, total.value(), units.value(), torch.cat(inner)[back], torch.cat(losses)[back])


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
    params = dict(zip(_names(job.model), job.model.split(job.params), strict=True))
    gradients, losses = vmap(_loss_gradient(job.model, job.loss), in_dims=(None, 0, 0, 0))(params, *_batch(job, *flat))
    joined = torch.cat([_flatten(job, g) for g in gradients.values()], dim=1)
    return joined.view(*sizes.shape, -1), losses.view(sizes.shape).sum(dim=1)


def _local_steps(job: Job, rows: Ints) -> tuple[Tensor, Tensor]:
    """Local SGD: start minus end of each client (K, 1, d), and losses (K,). Rows are sorted by steps, most first."""
    work: LocalSGD = job.work  # type: ignore[assignment]
    first = np.argsort(job.draw.counts[rows] == 0, axis=1, kind="stable")  # a client's own steps, without gaps
    counts = np.take_along_axis(job.draw.counts[rows], first, axis=1)
    positions = np.take_along_axis(job.draw.positions[rows], first[:, :, None], axis=1)
    params = job.params.repeat(len(rows), 1)
    stacks = job.model.split(params)
    known = stacked_layers.knows(job.model) and fused.unsupported_model(job.model, tuple(job.x.shape[1:])) is None
    take_step = stacked_layers.sgd_step if known else _functional_step
    losses = params.new_zeros(len(rows))
    for step in range(int(np.count_nonzero(counts[0]))):
        active = int(np.count_nonzero(counts[:, step]))
        taken = counts[:active, step]
        share = (np.arange(positions.shape[2]) < taken[:, None]) / taken[:, None]
        # The proximal pull is of the parameters before the step, as the gradient is.
        pull = (params[:active] - job.params) * (work.lr * work.proximal) if work.proximal else None
        x, y, weights = _batch(job, positions[:active, step], share)
        loss = take_step(job.model, [s[:active] for s in stacks], job.loss, x, y, weights, work.lr)
        if pull is not None:
            params[:active] -= pull
        losses[:active] += loss * torch.from_numpy(taken).to(losses)
    total = torch.from_numpy(counts.sum(axis=1)).to(losses)
    return params.neg_().add_(job.params)[:, None, :], losses / total  # in place: the stack is the largest thing here


def _functional_step(
    model: FlatModel, stacks: Sequence[Tensor], loss: Loss, x: Tensor, y: Tensor, share: Tensor, lr: float
) -> Tensor:
    """`stacked_layers.sgd_step` for any module, by torch.func."""
    params = dict(zip(_names(model), stacks, strict=True))
    gradients, losses = vmap(_loss_gradient(model, loss))(params, x, y, share)
    for name, gradient in gradients.items():
        params[name].sub_(gradient, alpha=lr)
    return losses


def _loss_gradient(model: FlatModel, loss: Loss) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    # The fused attention kernel for CPUs has no batching rule: vmap would call it for each client in turn.
    @sdpa_kernel(SDPBackend.MATH)
    def weighted_loss(params: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        return (loss(functional_call(model.module, params, (x,)), y, reduction="none") * share).sum()

    return grad_and_value(weighted_loss)


def _batch(job: Job, index: Ints, share: Floats) -> tuple[Tensor, Tensor, Tensor]:
    device = job.params.device
    flat = torch.from_numpy(index.ravel()).to(device)
    x = job.x.index_select(0, flat).view(*index.shape, *job.x.shape[1:])
    return x, job.y.index_select(0, flat).view(*index.shape, *job.y.shape[1:]), torch.from_numpy(share).to(job.params)


def _names(model: FlatModel) -> list[str]:
    return [name for name, p in model.module.named_parameters() if p.requires_grad]


def _flatten(job: Job, gradient: Tensor) -> Tensor:
    """Gradients (K, *shape) as (K, size) in the order of the flat vector."""
    permuted = job.model.channels_last and gradient.dim() == 5
    return (gradient.movedim(2, -1) if permuted else gradient).flatten(1)
