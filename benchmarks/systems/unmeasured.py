"""fedbatch's executors without all that measures, to tell what measuring costs; fedbatch has no such switch.

The weighted sum of updates and the losses stay, since a round needs them. Norms are the longest that the server takes,
which bounds the sum without a pass over it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.sums import Aggregate, Sum
from fedbatch.clients.job import ClientWork, Job
from fedbatch.clients.steps import run_client
from fedbatch.executors import agreement, vmap
from fedbatch.executors.choose import EXECUTORS
from fedbatch.executors.client_layers import ClientLayers
from fedbatch.executors.fused import chunks
from fedbatch.server import measure
from fedbatch.server.measure import Measured
from fedbatch.server.plausible import LARGEST
from fedbatch.wire.messages import Contribution

UNMEASURED = {name: f"{name}_unmeasured" for name in ("fused", "vmap", "loop")}


@contextmanager
def nothing_measured() -> Iterator[None]:
    """The nodes have the executors below, and the server estimates no noise scale."""
    usual, measure.measure = measure.measure, _no_estimate
    compared, agreement.disagreement = agreement.disagreement, lambda *_: None  # norms are wrong on purpose
    EXECUTORS.update(FUNCTIONS)
    try:
        yield
    finally:
        measure.measure, agreement.disagreement = usual, compared
        for name in FUNCTIONS:
            del EXECUTORS[name]


def fused_unmeasured(job: Job) -> Contribution:
    """The plain backward pass of the weighted loss, in the same chunks."""
    job.model.load(job.params, job.buffers)
    job.model.grads.zero_()
    losses = []
    for rows in chunks(job):
        counts = job.draw.counts[rows, 0]
        present = np.arange(job.draw.positions.shape[2]) < counts[:, None]
        index = torch.from_numpy(job.draw.positions[rows, 0][present]).to(job.params.device)
        client = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(job.params.device)
        share = torch.from_numpy(np.repeat(1 / counts, counts)).to(job.params)
        weight = torch.from_numpy(np.repeat(job.weights[rows], counts)).to(job.params)
        shared = share * job.loss(job.model.module(job.x[index]), job.y[index], reduction="none")
        (shared * weight).sum().backward()
        losses.append(shared.new_zeros(len(counts)).index_add_(0, client, shared.detach()))
    return _contribution(job, job.model.grads.clone(), torch.cat(losses))


def vmap_unmeasured(job: Job) -> Contribution:
    """Stacked clients, whose updates are only added up."""
    total, losses = Sum(job.params), []
    for rows in vmap.chunks(job, job.params.numel()):
        updates, loss = vmap.gradients(job, rows) if job.work.is_gradient else vmap.local_steps(job, rows, ClientLayers)
        total.add(updates.sum(torch.from_numpy(job.weights[rows]).to(job.params)), 1.0)
        losses.append(loss)
    return _contribution(job, total.value(), torch.cat(losses))


def loop_unmeasured(job: Job) -> Contribution:
    """Clients in turn, whose updates are only added up."""
    total, losses = Sum(job.params), []
    for row in range(len(job.clients)):
        update, loss, *_ = run_client(job, row)
        total.add(update, float(job.weights[row]))
        losses.append(loss)
    return _contribution(job, total.value(), torch.stack(losses))


def _contribution(job: Job, update_sum: Tensor, losses: Tensor) -> Contribution:
    return Contribution(
        update_sum=update_sum,
        buffer_sum=job.buffers.clone(),
        unit_sum=job.params.new_zeros(0),
        clients=job.clients,
        weights=job.weights,
        num_examples=job.draw.num_examples,
        sq_norms=np.full(len(job.clients), LARGEST),
        losses=losses.double().cpu().numpy(),
        half_dots=np.zeros(0),
        half_sq_diffs=np.zeros(0),
        excluded=np.zeros(0, np.int64),
    )


def _no_estimate(total: Aggregate, work: ClientWork, population: int, compression: object = None) -> Measured:
    return Measured(float(total.num_examples.sum()), "examples", None, None)


FUNCTIONS = {
    UNMEASURED["fused"]: fused_unmeasured,
    UNMEASURED["vmap"]: vmap_unmeasured,
    UNMEASURED["loop"]: loop_unmeasured,
}
