"""One client's round in plain PyTorch: its local steps by the three functions of `fedbatch.clients.work`."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients import work as works
from fedbatch.clients.job import Job


class Result(NamedTuple):
    """What came of one client's round.

    Attributes:
        update: (d,).
        loss: mean of the losses seen on the way, weighted by examples.
        halves: gradients (d,) of the two halves of the batch, if asked for.
        extras: (e,), what is sent besides, one vector after the other.
        buffers: (m,), what is sent of the model's buffers.
    """

    update: Tensor
    loss: Tensor
    halves: tuple[Tensor, Tensor] | None
    extras: Tensor
    buffers: Tensor


def run_client(job: Job, row: int) -> Result:
    """The round of the client in ``row`` of the job, from the global model, in the job's scratch model.

    Work that gives ``update(job, row)`` makes its update by itself.
    """
    work: Any = job.work
    model, counts = job.model, job.draw.counts[row]
    if not works.takes_steps(work):
        model.load(job.params, job.buffers)
        update, loss, halves = work.update(job, row)
        return Result(update, loss, halves, job.params[:0], model.pull_buffers())
    own = {name: vector[0] for name, vector in job.own_vectors(slice(row, row + 1)).items()}
    model.load(job.params, work.own_buffers(job.buffers, own) if hasattr(work, "own_buffers") else job.buffers)
    taken = np.flatnonzero(counts)
    steps, losses = job.params.new_full((1,), len(taken)), job.params.new_zeros(())
    point, carry = work.start(job.params, job.shared_vectors(), own)
    for index, step in enumerate(taken.tolist()):
        if point is not job.params:
            model.params.copy_(point)
        x, y = job.batch(row, step)
        losses += job.loss_and_gradient(row, step, x, y) * len(y)
        gradient, now = model.grads.clone(), works.Moment(job.round, index, steps)  # the model's own is overwritten
        point, carry = work.step(job.params, point, gradient, carry, now)
    done, buffers = work.finish(job.params, point, carry, steps), model.pull_buffers()
    kept = done.own
    if hasattr(work, "own_buffers"):
        kept, buffers = kept | {"buffers": buffers}, job.buffers
    job.keep(slice(row, row + 1), {name: vector[None] for name, vector in kept.items()})
    extras = works.joined(done.extras, job.sizes("extras"), done.update)
    loss = torch.where(works.is_finite(done), losses / int(counts.sum()), torch.nan)  # so that the client is left out
    return Result(done.update, loss, None, extras, buffers)
