"""One node's job in one round, as every executor gets it, and the protocols of client work and executor."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients import work as works
from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.outbox import Outbox
from fedbatch.clients.own import OwnVectors
from fedbatch.clients.parts import half_columns
from fedbatch.core.random import Ints, bits
from fedbatch.core.transfer import to_device
from fedbatch.data.partition import Partition
from fedbatch.models.dropout import keyed_dropout
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.wire.messages import Contribution


class ClientWork(Protocol):
    """What a client computes on its examples: local steps by the functions of `fedbatch.clients.work.LocalWork`.

    Work that is no sequence of steps gives ``update(job, row)`` in their place; the loop alone runs it. It returns the
    update (d,), the mean loss, and the pair of half gradients if asked, for the client in ``row`` of the job.

    Attributes:
        is_gradient: updates are gradients at the global parameters: then they measure the noise scale in examples;
            otherwise they measure it in clients only.
        is_plain_sgd: steps are plain SGD on a batch, with ``lr`` and ``proximal`` where there are several. Executors
            may take those of many clients side by side, and privacy may clip them example by example.
        is_per_example: a client is a single example; see `fedbatch.clients.per_example`.

    The last two are false where they are missing.
    """

    is_gradient: bool

    def draw(self, partition: Partition, clients: Ints, batch_sizes: Ints, seed: int, round_: int) -> Draw:
        """The examples of each client in this round."""
        ...

    def num_examples(self, batch_sizes: Ints, sizes: Ints) -> Ints:
        """Examples (K,) that clients with ``sizes`` (K,) examples process in a round."""
        ...

    def smallest_batch(self, batch_sizes: Ints, sizes: Ints) -> int:
        """Examples of the smallest batch of clients with ``sizes`` (K,) examples and ``batch_sizes`` (K,)."""
        ...

    def num_steps(self, sample_rate: float) -> int:
        """Steps of a round when each takes every example with probability ``sample_rate``, as privacy samples."""
        ...


@dataclass(frozen=True)
class Job:
    """Everything an executor needs to compute a `Contribution`.

    Attributes:
        model: scratch model of this node; executors overwrite it.
        loss: loss function.
        x: training inputs (N, ...), on the device.
        y: training labels (N,), or (N, T) where examples are sequences, on the device.
        work: the client work.
        clients: int64 (K,) ids, ascending.
        draw: the examples of each client.
        weights: float64 (K,) weight of each update in the sum.
        params: (d,) global parameters.
        buffers: (m,) global buffers.
        halves: whether to measure the two halves of each batch.
        cosine: whether to add up unit updates.
        seeds: int64 (K,) in ``[0, 2^62)``, keys of what random layers draw for each client; None = 0.
        clip: how to clip each client's update before it is weighted and added; the contribution's ``sq_norms`` are
            then those of the clipped updates. Not together with halves and cosine.
        memory_bytes: what clients that are computed at once may take; None = as much as suits the caches of a CPU.
        round: index of the round.
        shared: (s,) the server's vectors for this work, one after the other; None = zeros.
        own: the clients' own vectors; None = zeros, and nothing is kept.
        outbox: takes every client's own update, which is then sent compressed; None = sums alone are sent.
    """

    model: FlatModel
    loss: Loss
    x: Tensor
    y: Tensor
    work: ClientWork
    clients: Ints
    draw: Draw
    weights: np.ndarray
    params: Tensor
    buffers: Tensor
    halves: bool = False
    cosine: bool = False
    clip: Clip | None = None
    seeds: Ints | None = None
    memory_bytes: float | None = None
    round: int = 0
    shared: Tensor | None = None
    own: OwnVectors | None = None
    outbox: Outbox | None = None

    def select(self, rows: np.ndarray | slice) -> "Job":
        """The job of some of the clients."""
        seeds = None if self.seeds is None else self.seeds[rows]
        draw, clients, weights = self.draw.select(rows), self.clients[rows], self.weights[rows]
        return replace(self, clients=clients, draw=draw, weights=weights, seeds=seeds)

    def sizes(self, kind: str) -> dict[str, int]:
        """Names and lengths of the "extras", "own" or "shared" vectors of the work; see `fedbatch.clients.work`."""
        return works.lengths(self.work, kind, self.params, self.buffers)

    def shared_vectors(self) -> works.Vectors:
        """The server's vectors (n,) by name."""
        sizes = self.sizes("shared")
        flat = self.params.new_zeros(sum(sizes.values())) if self.shared is None else self.shared
        return works.split(flat.to(self.params), sizes)

    def own_vectors(self, rows: np.ndarray | slice) -> works.Vectors:
        """The own vectors (K, n), by name, of the clients in ``rows``, as they were before the round."""
        sizes, clients = self.sizes("own"), self.clients[rows]
        if not sizes:
            return {}
        if self.own is None:
            return works.split(self.params.new_zeros(len(clients), sum(sizes.values())), sizes)
        return works.split(self.own.read(clients).to(self.params), sizes)

    def keep(self, rows: np.ndarray | slice, own: works.Vectors) -> None:
        """Keep the vectors (K, n), by name, of the clients in ``rows`` for their next round."""
        if self.own is not None and (sizes := self.sizes("own")):
            self.own.write(self.clients[rows], torch.cat([own[name] for name in sizes], dim=1))

    def put(self, rows: np.ndarray | slice, updates: Tensor, losses: Tensor) -> Tensor:
        """Put updates (K, d) of the clients in ``rows`` in the outbox, if there is one.

        Returns:
            The losses (K,), NaN for clients who cannot send theirs, so that they are left out.
        """
        if self.outbox is None:
            return losses
        return torch.where(self.outbox.put(self.clients[rows], updates), losses, torch.nan)

    def step_seeds(self, rows: np.ndarray | slice, steps: Ints | int) -> Ints:
        """Keys (n,) of what random layers draw for the clients in ``rows``, each at its own or one local step."""
        seeds = np.zeros(len(self.clients), np.int64) if self.seeds is None else self.seeds
        return (bits(0, seeds[rows], np.asarray(steps)) >> np.uint64(2)).astype(np.int64)

    def loss_and_gradient(self, row: int, step: int, x: Tensor, y: Tensor, first: int = 0) -> Tensor:
        """`FlatModel.loss_and_gradient` with the random layers' draws of this client and step.

        Args:
            row: of the client in the job.
            step: of its local steps.
            x: inputs (b, ...).
            y: labels (b, ...).
            first: place of the first example in the client's batch.
        """
        if not self.model.is_random:
            return self.model.loss_and_gradient(self.loss, x, y)
        seed = int(self.step_seeds(slice(row, row + 1), step)[0])
        random.seed(seed)  # for layers that draw from Python's or NumPy's own generators
        np.random.seed(seed % 2**32)
        with keyed_dropout(torch.tensor(seed), len(x), first, seed):
            return self.model.loss_and_gradient(self.loss, x, y)

    def batch(self, row: int, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of one step of one client."""
        index = to_device(self.draw.positions[row, step, : self.draw.counts[row, step]], self.x.device)
        return self.x[index], self.y[index]


class Executor(Protocol):
    """How a node runs a job."""

    def __call__(self, job: Job) -> Contribution:
        """The contribution of the job's clients; non-finite updates show as non-finite ``sq_norms``."""
        ...


def contribution(
    job: Job,
    update_sum: Tensor,
    unit_sum: Tensor,
    inner: Tensor,
    losses: Tensor,
    order: Sequence[Ints],
    extra_sums: Tensor | None = None,
) -> Contribution:
    """The answer of an executor that leaves buffers as they are.

    Args:
        job: the job.
        update_sum: (d,) weighted sum of updates.
        unit_sum: (d,) sum of unit updates, ignored unless the job wants it.
        inner: (K, S, S) inner products between the parts of each client's update.
        losses: (K,) mean losses.
        order: rows of the job in the order of ``inner`` and ``losses``, chunk by chunk.
        extra_sums: (e,) weighted sums of what clients send besides; None where that is nothing.
    """
    back = np.argsort(np.concatenate(order), kind="stable")
    found = torch.cat([inner.double().flatten(), losses.double()]).cpu().numpy()  # together: one wait
    products = found[: inner.numel()].reshape(inner.shape)[back]
    dots, diffs = half_columns(products, job.draw.counts[:, 0])
    return Contribution(
        update_sum=update_sum,
        buffer_sum=job.buffers.clone(),
        unit_sum=unit_sum if job.cosine else unit_sum[:0],
        clients=job.clients,
        weights=job.weights,
        num_examples=job.draw.num_examples,
        sq_norms=np.maximum(products.sum(axis=(1, 2)), 0.0),
        losses=found[inner.numel() :][back],
        half_dots=dots,
        half_sq_diffs=diffs,
        excluded=np.zeros(0, np.int64),
        extra_sums=update_sum[:0] if extra_sums is None else extra_sums,
    )
