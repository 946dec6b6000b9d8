"""What every stage of a compression gives: the protocol, and the random numbers that both ends draw from a key."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Side = dict[str, Tensor]
"""What a stage sends beside its vector, by name."""
Field = tuple[torch.dtype, int]
"""Dtype and length of a tensor that is sent."""


class Stage(Protocol):
    """One step of a compression: a client half, `encode`, and a server half, `decode`.

    The vector that `encode` gives goes on to the next stage, and is sent after the last one. Two more functions are
    called where they are there. ``on_model(model)`` gives the stage for a `FlatModel`. ``aggregated(mean)`` gives what
    the server steps along, from the mean (n,) of all decoded vectors.

    Attributes:
        is_unbiased: over keys, what is decoded is on average the vector that was encoded.
    """

    is_unbiased: bool

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """From a vector (n,) to a shorter one (m,), in the same dtype, and what is sent besides.

        What cannot be held comes back as values that are not finite; the client is then left out.
        """
        ...

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """From (m,) back to (n,), by the key with which it was encoded. It is linear in ``vector``.

        Raises:
            ValueError: ``side`` is nothing that `encode` gives.
        """
        ...

    def length(self, n: int) -> int:
        """The number m, from n."""
        ...

    def fields(self, n: int) -> dict[str, Field]:
        """What is sent besides, for n numbers."""
        ...

    def worst_error(self, n: int) -> float:
        """The largest ``E|decoded - v|^2 / |v|^2`` over vectors v (n,); error feedback needs less than 1."""
        ...


def kept(share: float, n: int) -> int:
    """How many of n numbers a share is: at least one, of any.

    >>> kept(0.1, 30), kept(0.001, 30), kept(0.5, 0)
    (3, 1, 0)
    """
    return min(n, max(1, round(share * n)))


def generator(key: int) -> np.random.Generator:
    """Random numbers that are the same at both ends, whatever device each has."""
    return np.random.Generator(np.random.Philox(key=key))


def uniform(like: Tensor, key: int) -> Tensor:
    """Uniform numbers in [0, 1), as many as ``like`` (n,) has, in its dtype and on its device."""
    drawn = generator(key).random(len(like), dtype=np.float64 if like.dtype == torch.float64 else np.float32)
    return torch.from_numpy(drawn).to(like)
