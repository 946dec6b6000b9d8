"""What clients of a node keep for themselves from round to round, as executors read and write it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedbatch.core.random import Ints


@dataclass
class OwnVectors:
    """The own vectors of a node's clients in one round, each client's one after the other.

    What is written is not read before the next round, so that a job may be run twice, or in parts.

    Attributes:
        before: gives the vectors (K, o) with which clients (K,) begin the round.
        after: by client, the vector (o,) with which it ends, where there is no ``save``.
        save: takes a client and the vector with which it ends, so that the vectors of many need not be in memory.
    """

    before: Callable[[Ints], Tensor]
    after: dict[int, Tensor] = field(default_factory=dict)
    save: Callable[[int, Tensor], None] | None = None

    def read(self, clients: Ints) -> Tensor:
        """The vectors (K, o) of clients (K,) before the round."""
        return self.before(clients)

    def write(self, clients: Ints, values: Tensor) -> None:
        """The vectors (K, o) of clients (K,) after the round."""
        keep = self.after.__setitem__ if self.save is None else self.save
        for client, vector in zip(clients.tolist(), values.detach().cpu().clone(), strict=True):
            keep(client, vector)

    def anew(self) -> "OwnVectors":
        """The same before the round, with nothing written yet, and what is written is kept in memory."""
        return OwnVectors(self.before)

    def stacked(self, clients: Ints) -> Tensor:
        """What was written (K, o) of clients (K,)."""
        return torch.stack([self.after[client] for client in clients.tolist()])
