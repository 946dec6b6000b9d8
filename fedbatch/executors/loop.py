"""The reference executor: one client after the other, in plain PyTorch."""

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.sums import Sum
from fedbatch.clients.job import Job
from fedbatch.clients.parts import inner_products
from fedbatch.clients.steps import run_client
from fedbatch.core.errors import RunFailedError
from fedbatch.wire.messages import Contribution

EMPTY = np.zeros(0)


def loop(job: Job) -> Contribution:
    """Run the clients of ``job`` in turn. Simple and right: faster executors are tested against it."""
    total, buffers = Sum(job.params), Sum(job.buffers)
    units = Sum(job.params if job.cosine else job.params[:0])
    more = Sum(job.params.new_zeros(sum(job.sizes("extras").values())))
    sq_norms, losses, dots, diffs = [], [], [], []
    for row in range(len(job.clients)):
        update, loss, halves, extras, own_buffers = run_client(job, row)
        if job.outbox is not None:
            loss = job.put(slice(row, row + 1), update[None], loss[None])[0]
        if job.clip is None:
            sq_norm = inner_products(update[None])[0, 0].double()
        else:
            update, sq_norm = clipped(job, update)
        total.add(update, float(job.weights[row]))
        buffers.add(own_buffers, float(job.weights[row]))
        more.add(extras, float(job.weights[row]))
        if job.cosine:
            units.add(update / torch.where(sq_norm > 0, sq_norm, 1.0).sqrt(), 1.0)
        sq_norms.append(sq_norm)
        losses.append(loss)
        if halves is not None:
            cut = int(job.draw.counts[row, 0]) // 2
            inverse_sizes = 1 / cut + 1 / (int(job.draw.counts[row, 0]) - cut)
            dots.append(inner_products(torch.stack(halves))[0, 1])
            diffs.append((halves[0] - halves[1]).square().sum().double() / inverse_sizes)
    if name := job.model.changed_constant():
        raise RunFailedError(
            f"model: buffer {name} has changed, though a first call of the model left it as it was; let every training "
            "call change it, so that it travels with the parameters"
        )
    complete = len(dots) == len(job.clients)
    return Contribution(
        update_sum=total.value(),
        buffer_sum=buffers.value(),
        unit_sum=units.value(),
        clients=job.clients,
        weights=job.weights,
        num_examples=job.draw.num_examples,
        sq_norms=_column(sq_norms),
        losses=_column(losses),
        half_dots=_column(dots) if complete else EMPTY,
        half_sq_diffs=_column(diffs) if complete else EMPTY,
        excluded=np.zeros(0, np.int64),
        extra_sums=more.value(),
    )


def clipped(job: Job, update: Tensor) -> tuple[Tensor, Tensor]:
    """The clipped update (d,) and its squared norm."""
    assert job.clip is not None
    factors, squares = job.clip(job.model.layer_sq_norms(update)[:, None])
    parts = update.split(job.model.layer_sizes)
    return torch.cat([part * factor for part, factor in zip(parts, factors[:, 0], strict=True)]), squares[0]


def _column(values: list[Tensor]) -> np.ndarray:
    return torch.stack(values).double().cpu().numpy() if values else EMPTY
