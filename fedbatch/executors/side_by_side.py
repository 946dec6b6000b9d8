"""Local steps of any kind for many clients side by side: the functions of `fedbatch.clients.work` on (K, d)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from fedbatch.clients import work as works
from fedbatch.clients.job import Job
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.executors.functional import batch, loss_gradient, names
from fedbatch.executors.updates import FlatUpdates


def own_steps(job: Job, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Each client's own steps, without gaps: their places (K, S), batch sizes (K, S) and examples (K, S, b)."""
    places = np.argsort(job.draw.counts[rows] == 0, axis=1, kind="stable")
    counts = np.take_along_axis(job.draw.counts[rows], places, axis=1)
    positions = np.take_along_axis(job.draw.positions[rows, :, : counts.max()], places[:, :, None], axis=1)
    return places, counts, positions


def local_steps(job: Job, rows: Ints) -> tuple[FlatUpdates, Tensor, Tensor]:
    """Updates, mean losses (K,) and extras (K, e) of the clients in ``rows``, which are sorted by steps, most first.

    A client that is done drops out of the stack: its point and its carry stay as they are.
    """
    work: Any = job.work
    places, counts, positions = own_steps(job, rows)
    taken = np.count_nonzero(counts, axis=1)
    steps = to_device(taken, job.params.device).to(job.params)[:, None]
    params, losses = job.params.expand(len(rows), -1), job.params.new_zeros(len(rows))
    shared = {name: vector.expand(len(rows), -1) for name, vector in job.shared_vectors().items()}
    point, carry = work.start(params, shared, job.own_vectors(rows))
    for index in range(int(taken[0])):
        active = int(np.count_nonzero(counts[:, index]))
        sizes = counts[:active, index]
        share = (np.arange(positions.shape[2]) < sizes[:, None]) / sizes[:, None]
        keys = to_device(job.step_seeds(rows[:active], places[:active, index]), job.params.device)
        gradient, loss = _gradients(job, point[:active], *batch(job, positions[:active, index], share), keys)
        losses[:active] += loss * to_device(sizes, losses.device).to(losses)
        own = {name: vector[:active] for name, vector in carry.items()}
        now = works.Moment(job.round, index, steps[:active])
        new, moved = work.step(params[:active], point[:active], gradient, own, now)
        point, carry = _above(new, point), {name: _above(moved[name], vector) for name, vector in carry.items()}
    done = work.finish(params, point, carry, steps)
    none = {"buffers": job.buffers.expand(len(rows), -1)} if hasattr(work, "own_buffers") else {}
    job.keep(rows, done.own | none)  # a model with buffers is not run here
    updates = FlatUpdates(done.update[:, None], job.model.layer_sizes)
    extras = works.joined(done.extras, job.sizes("extras"), done.update)
    losses /= to_device(counts.sum(axis=1), losses.device).to(losses)
    return updates, torch.where(works.is_finite(done), losses, torch.nan), extras


def _gradients(job: Job, point: Tensor, x: Tensor, y: Tensor, share: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (k, d) and losses (k,) of clients at their points (k, d)."""
    params = dict(zip(names(job.model), job.model.split(point), strict=True))
    gradients, losses = vmap(loss_gradient(job.model, job.loss))(params, x, y, share, keys, torch.zeros_like(keys))
    return job.model.join(list(gradients.values())), losses


def _above(first: Tensor, all_: Tensor) -> Tensor:
    """The rows ``first`` (k, n) in the place of the first k of ``all_`` (K, n)."""
    return first if len(first) == len(all_) else torch.cat([first, all_[len(first) :]])
