"""How the examples of a fused batch group into clients, and into the two halves of each client's batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device

Floats = np.ndarray[Any, np.dtype[np.float64]]
BLOCK = 2**15


def part_sizes(counts: Ints, halves: bool) -> Ints:
    """Examples in each part (K, S) of batches of ``counts`` (K,): the whole, or two halves, the first the smaller."""
    return np.stack([counts // 2, counts - counts // 2], axis=1) if halves else counts[:, None]


@dataclass(frozen=True)
class Parts:
    """A layout of n concatenated examples as (clients, parts, members), padded where batches are unequal.

    Attributes:
        clients: K, clients in the batch.
        parts: S, 1 for whole batches or 2 for halves.
        members: m, examples of the largest part.
        sizes: int64 (K, S), examples in each part.
        slots: int64 (n,), place of each example in the flattened (K * S * m) layout; None when all parts are full and
            the layout is a view.
        exact: whether inner products bound what is summed, rounding included, as clipping needs: for gradients whose
            positions nearly cancel, neither may be taken for shorter than it is.
    """

    clients: int
    parts: int
    members: int
    sizes: Ints
    slots: Tensor | None
    exact: bool = False

    @classmethod
    def of(cls, counts: Ints, halves: bool, device: torch.device, exact: bool = False) -> "Parts":
        """The layout of clients with ``counts`` examples each, in client order."""
        sizes = part_sizes(counts, halves)
        members = int(sizes.max(initial=0))
        if (sizes == members).all():
            return cls(len(counts), sizes.shape[1], members, sizes, None, exact)
        present = np.arange(members) < sizes[:, :, None]  # (K, S, m)
        slots = to_device(np.flatnonzero(present), device)
        return cls(len(counts), sizes.shape[1], members, sizes, slots, exact)

    def spread(self, values: Tensor) -> Tensor:
        """Values of examples (n, ...) as (K * S, m, ...); padding is zero."""
        shape = (self.clients * self.parts, self.members, *values.shape[1:])
        if self.slots is None:
            return values.reshape(shape)
        padded = values.new_zeros(self.clients * self.parts * self.members, *values.shape[1:])
        return padded.index_copy_(0, self.slots, values).view(shape)

    def sums(self, values: Tensor) -> Tensor:
        """Sums of values of examples (n, ...) over the members of each part, (K * S, ...)."""
        return self.spread(values).sum(dim=1)

    def scaled(self, values: Tensor, factors: Tensor | None) -> Tensor:
        """Values of examples (n, ...) times their client's factor (K,); as they are where there is none."""
        if factors is None:
            return values
        counts = to_device(self.sizes.sum(axis=1), factors.device)
        return values * factors.repeat_interleave(counts, output_size=len(values)).view(-1, *[1] * (values.dim() - 1))

    def total(self, own: Tensor, factors: Tensor | None) -> Tensor:
        """Sum over parts of (K * S, ...), each times its client's factor (K,) where there is one."""
        if factors is None:
            return own.sum(dim=0)
        return torch.tensordot(factors.repeat_interleave(self.parts), own, dims=1)

    def products(self, gradients: Tensor) -> Tensor:
        """Inner products (K, S, S) between the parts of each client, from their gradients (K * S, size)."""
        return inner_products(gradients.reshape(self.clients, self.parts, -1))


def inner_products(vectors: Tensor) -> Tensor:
    """Inner products (..., S, S) between vectors (..., S, size), in float64 where they are added up over blocks.

    One float32 sum over millions of squares is off by 1e-4.
    """
    if vectors.shape[-1] <= BLOCK:
        return vectors @ vectors.mT
    if vectors.device.type != "cpu":  # a GPU adds up in a tree, and minds many small kernels
        rows = vectors.unbind(dim=-2)
        return torch.stack([torch.stack([(a * b).sum(dim=-1) for b in rows], dim=-1) for a in rows], dim=-2)
    return torch.stack([block @ block.mT for block in vectors.split(BLOCK, dim=-1)]).sum(dim=0, dtype=torch.float64)


def half_columns(inner: Floats, counts: Ints) -> tuple[Floats, Floats]:
    """``half_dots`` and ``half_sq_diffs`` from inner products (K, S, S) of each client's weighted parts.

    Part i of client k is ``b_i / b_k`` times the gradient of its half. Empty unless every client has two halves.
    """
    if inner.shape[1] == 1 or (counts < 2).any():
        return np.zeros(0), np.zeros(0)
    sizes = part_sizes(counts, halves=True)
    share = sizes / counts[:, None]
    gradients = inner / (share[:, :, None] * share[:, None, :])
    dots = gradients[:, 0, 1]
    diffs = (gradients[:, 0, 0] + gradients[:, 1, 1] - 2 * dots) / (1 / sizes).sum(axis=1)
    return dots, np.maximum(diffs, 0.0)
