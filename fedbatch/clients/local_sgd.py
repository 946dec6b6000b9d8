"""Local SGD: a client trains for some steps and sends its parameter change (FedAvg, McMahan et al. 2017, alg. 1)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients.draw import Draw, first_slots
from fedbatch.clients.work import Finished, Moment, Vectors
from fedbatch.core.random import Ints, key
from fedbatch.data.partition import Partition


@dataclass(frozen=True)
class LocalSGD:
    """SGD from the global parameters; the update is start minus end, a pseudo-gradient (Reddi et al. 2021).

    Attributes:
        lr: client learning rate, > 0.
        epochs: passes over the client's data, each in a new order; None to count steps instead.
        steps: number of batches, each drawn afresh without replacement; None to count epochs.
        proximal: weight mu >= 0 of ``mu/2 |w - w_global|^2`` (FedProx, Li et al. 2020); 0 for plain local SGD.
    """

    lr: float
    epochs: int | None = 1
    steps: int | None = None
    proximal: float = 0.0

    is_gradient = False
    is_plain_sgd = True
    is_per_example = False

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("client_work: set one of epochs and steps, and the other to null")
        if (self.epochs or self.steps or 0) < 1:
            raise ValueError(f"client_work: epochs or steps must be at least 1 (got {self.epochs or self.steps})")
        if self.lr <= 0 or self.proximal < 0:
            raise ValueError("client_work: lr must be > 0 and proximal >= 0")

    def draw(self, partition: Partition, clients: Ints, batch_sizes: Ints, seed: int, round_: int) -> Draw:
        """``steps`` fresh batches, or ``epochs`` permutations cut into batches with the last one short."""
        sizes = partition.sizes(clients)
        batch_sizes = np.minimum(batch_sizes, sizes)
        width = int(batch_sizes.max(initial=1))
        if self.steps is not None:
            keys = [key(seed, "batch", round_, step) for step in range(self.steps)]
            slots = np.stack([first_slots(k, clients, sizes, width) for k in keys], axis=1)
            counts = np.repeat(batch_sizes[:, None], self.steps, axis=1)
        else:
            keys = [key(seed, "batch", round_, epoch) for epoch in range(self.epochs or 0)]
            epochs = [self._epoch(k, clients, sizes, batch_sizes, width) for k in keys]
            slots = np.concatenate([s for s, _ in epochs], axis=1)
            counts = np.concatenate([c for _, c in epochs], axis=1)
        return Draw(partition.lookup(clients[:, None, None], slots), counts)

    @staticmethod
    def _epoch(key_: int, clients: Ints, sizes: Ints, batch_sizes: Ints, width: int) -> tuple[Ints, Ints]:
        order = first_slots(key_, clients, sizes, int(sizes.max(initial=0)))
        steps = int((-(-sizes // batch_sizes)).max(initial=0))
        starts = np.arange(steps)[None, :] * batch_sizes[:, None]  # (K, steps)
        counts = np.clip(sizes[:, None] - starts, 0, batch_sizes[:, None])
        columns = np.minimum(starts[:, :, None] + np.arange(width), order.shape[1] - 1)  # (K, steps, width)
        slots = np.take_along_axis(order, columns.reshape(len(clients), -1), axis=1)
        return slots.reshape(len(clients), steps, width), counts

    def num_examples(self, batch_sizes: Ints, sizes: Ints) -> Ints:
        """All of them in every epoch, or a batch in every step."""
        return (self.epochs or 0) * sizes if self.steps is None else self.steps * np.minimum(batch_sizes, sizes)

    def smallest_batch(self, batch_sizes: Ints, sizes: Ints) -> int:
        """A whole batch, or what an epoch leaves for its last one."""
        batch_sizes = np.minimum(batch_sizes, sizes)
        last = sizes % batch_sizes if self.steps is None else 0
        return int(np.where(last > 0, last, batch_sizes).min())

    def num_steps(self, sample_rate: float) -> int:
        """Steps of a round in which each takes every example with probability ``sample_rate``."""
        return self.steps or (self.epochs or 0) * math.ceil(1 / sample_rate)

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters."""
        return params, {}

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """``w - lr (g + mu (w - w_global))``."""
        if self.proximal:
            gradient = torch.add(gradient, point - params, alpha=self.proximal)
        return torch.sub(point, gradient, alpha=self.lr), carry

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end."""
        return Finished(params - point, {}, {})
