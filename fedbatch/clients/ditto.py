"""Ditto: beside the global model each client trains its own, drawn to the global one (Li et al. 2021, alg. 1)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients.draw import Draw
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.work import Finished, Lengths, Moment, Vectors
from fedbatch.core.random import Ints
from fedbatch.data.partition import Partition


@dataclass(frozen=True)
class Ditto(LocalSGD):
    """Each batch makes two steps: of local SGD on the global model, and of the client's own model v,
    ``v <- v - lr (g(v) + pull (v - w_global))``. Only the first is sent.

    The first v of a client are the global parameters of its first round. Examples and losses count both steps.

    Attributes:
        pull: lambda >= 0, how strongly a client's own model is drawn to the global one.
    """

    pull: float = 0.1

    is_plain_sgd = False
    own: ClassVar[Lengths] = {"personal": "params", "begun": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pull < 0:
            raise ValueError("client_work: pull must be >= 0")

    def draw(self, partition: Partition, clients: Ints, batch_sizes: Ints, seed: int, round_: int) -> Draw:
        """Each batch of local SGD twice in a row."""
        once = super().draw(partition, clients, batch_sizes, seed, round_)
        return Draw(np.repeat(once.positions, 2, axis=1), np.repeat(once.counts, 2, axis=1))

    def num_examples(self, batch_sizes: Ints, sizes: Ints) -> Ints:
        """Of both models."""
        return 2 * super().num_examples(batch_sizes, sizes)

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters; v waits."""
        return params, {"other": self.own_params(params, own)}

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """A step of one model; the next one is the other's."""
        if now.step % 2:
            moved = point - self.lr * (gradient + self.pull * (point - params))
        else:
            moved, _ = super().step(params, point, gradient, {}, now)
        return carry["other"], {"other": moved}

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end of the global model, and v."""
        return Finished(params - point, {}, {"personal": carry["other"], "begun": torch.ones_like(point[..., :1])})

    def own_params(self, params: Tensor, own: Vectors) -> Tensor:
        """The parameters (d,) or (K, d) that clients use themselves."""
        return torch.where(own["begun"] > 0, own["personal"], params)
