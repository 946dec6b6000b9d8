"""Adding updates up: the weighted mean of a cohort and the norms that the noise scale needs.

A node adds its clients with `Sum`, the server adds the nodes with `combine`; both in client-id order and in float64,
so that the result depends on neither arrival order nor, to rounding, on how clients are spread over nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.robust import Aggregator
from fedbatch.core.errors import RunFailedError
from fedbatch.wire.messages import Contribution, Updates
from fedbatch.wire.schema import Vector

BLOCK = 2**24
"""Numbers added at a time: torch makes a float64 copy of what it adds, which for a whole large model is two models."""


class DivergedError(RunFailedError):
    """Training cannot go on; the text says what to change."""


class Sum:
    """A running weighted sum of vectors, kept in float64.

    >>> total = Sum(torch.zeros(2)); total.add(torch.tensor([1., 2.]), 3.0); total.value()
    tensor([3., 6.])
    """

    def __init__(self, like: Tensor):
        self.total = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        self._dtype = like.dtype

    def add(self, vector: Tensor, weight: float) -> None:
        """Add ``weight * vector``."""
        for total, part in zip(self.total.split(BLOCK), vector.split(BLOCK), strict=True):
            total.add_(part, alpha=weight)

    def value(self) -> Tensor:
        """The sum, in the dtype of the vectors."""
        return self.total.to(self._dtype)


@dataclass(frozen=True)
class Aggregate:
    """The cohort's mean update and what is known of its parts.

    Attributes:
        mean_update: (d,) ``sum w_k u_k / sum w_k``.
        mean_buffers: (m,) weighted mean of the clients' buffers.
        weight_sum: ``sum w_k``.
        sq_norm_of_mean: ``|mean_update|^2``.
        mean_cosine: mean cosine between the updates of two different clients (Charles et al. 2021), NaN when the sum
            of unit updates was not asked for or there is one client.
        clients, weights, num_examples, sq_norms, losses, half_dots, half_sq_diffs: (K,) as in `Contribution`.
        excluded: ids left out because their update was not finite.
        mean_extras: (e,) weighted mean of what was sent besides.
        lost: clients who had lost what they kept.
        compression_energy: ``sum w_k^2 |C(u_k) - u_k|^2 / (sum w_k)^2``, the squared length that independent errors of
            compression add to the mean update; None where nothing is compressed.
        compression_overlap: sum over pairs of clients of the trace of the product of their errors' covariances, in the
            unit of the mean update's squared length, squared.
    """

    mean_update: Tensor
    mean_buffers: Tensor
    weight_sum: float
    sq_norm_of_mean: float
    mean_cosine: float
    clients: Vector
    weights: Vector
    num_examples: Vector
    sq_norms: Vector
    losses: Vector
    half_dots: Vector
    half_sq_diffs: Vector
    excluded: Vector
    mean_extras: Tensor = field(default_factory=lambda: torch.zeros(0))
    lost: int = 0
    compression_energy: float | None = None
    compression_overlap: float = 0.0

    @property
    def loss(self) -> float:
        """Training loss of the cohort, weighted like the update; NaN without clients."""
        if not self.weight_sum:
            return float("nan")
        return float(np.dot(self.weights, self.losses) / self.weight_sum)


def nobody(params: Tensor, buffers: Tensor) -> Aggregate:
    """The aggregate of a round in which no client takes part, as Poisson sampling may draw: a zero update."""
    none, ids = np.zeros(0), np.zeros(0, np.int64)
    nan = float("nan")
    update = torch.zeros_like(params)
    return Aggregate(update, buffers.clone(), 0.0, 0.0, nan, ids, none, ids, none, none, none, none, ids)


def combine(contributions: Sequence[Contribution]) -> Aggregate:
    """Combine the nodes' sums to the cohort's mean.

    Args:
        contributions: at least one, with at least one client in all; any order.

    Raises:
        DivergedError: every update was left out because it was not finite.
    """
    parts = sorted((c for c in contributions if len(c.clients)), key=lambda c: int(c.clients[0]))
    if not parts:
        raise DivergedError("no client has a finite update: training has diverged; lower server_optimizer.lr")
    clients = np.concatenate([c.clients for c in parts])
    order = np.argsort(clients, kind="stable")

    def column(name: str) -> Vector:
        values = np.concatenate([getattr(c, name) for c in parts])
        return values[order] if len(values) == len(order) else values[:0]

    weights = column("weights")
    weight_sum = float(weights.sum())
    mean_update = _total([c.update_sum for c in parts]).div_(weight_sum)
    errors = column("sq_errors")
    unit_sums = [c.unit_sum for c in parts]
    return Aggregate(
        mean_update=mean_update.to(parts[0].update_sum.dtype),
        mean_buffers=_total([c.buffer_sum for c in parts]).div_(weight_sum).to(parts[0].buffer_sum.dtype),
        weight_sum=weight_sum,
        sq_norm_of_mean=float(mean_update.dot(mean_update)),
        mean_cosine=mean_pairwise_cosine(_total(unit_sums), len(clients)),
        clients=clients[order],
        weights=weights,
        num_examples=column("num_examples"),
        sq_norms=column("sq_norms"),
        losses=column("losses"),
        half_dots=column("half_dots"),
        half_sq_diffs=column("half_sq_diffs"),
        excluded=np.sort(np.concatenate([c.excluded for c in contributions])),
        mean_extras=_total([c.extra_sums for c in parts]).div_(weight_sum).to(parts[0].update_sum.dtype),
        lost=sum(c.lost for c in contributions),
        compression_energy=float(weights**2 @ errors) / weight_sum**2 if len(errors) else None,
    )


def combine_single(answers: Sequence[Updates], aggregator: Aggregator, buffers: Tensor) -> Aggregate:
    """Combine single updates by a robust rule; the norms, for the noise scale, are those of their plain mean.

    Raises:
        DivergedError: no client has a finite update.
    """
    parts = [a for a in answers if len(a.clients)]
    if not parts:
        raise DivergedError("no client has a finite update: training has diverged; lower server_optimizer.lr")
    clients = np.concatenate([a.clients for a in parts])
    order = np.argsort(clients, kind="stable")
    updates = torch.cat([a.updates.view(len(a.clients), -1) for a in parts])[torch.from_numpy(order)]
    mean = updates.double().mean(dim=0)
    none = np.zeros(0)
    return Aggregate(
        mean_update=aggregator(updates),
        mean_buffers=buffers,
        weight_sum=float(len(clients)),
        sq_norm_of_mean=float(mean.dot(mean)),
        mean_cosine=float("nan"),
        clients=clients[order],
        weights=np.ones(len(clients)),
        num_examples=np.concatenate([a.num_examples for a in parts])[order],
        sq_norms=updates.double().square().sum(dim=1).cpu().numpy(),
        losses=np.concatenate([a.losses for a in parts])[order],
        half_dots=none,
        half_sq_diffs=none,
        excluded=np.sort(np.concatenate([a.excluded for a in answers])),
        lost=sum(a.lost for a in answers),
    )


def mean_pairwise_cosine(unit_sum: Tensor, count: int) -> float:
    """Mean cosine over the pairs of ``count`` updates, from the sum of their unit vectors.

    ``(|sum_k u_k/|u_k||^2 - M) / (M (M - 1))``: the pairs are what is left of the square after its M diagonal ones.

    >>> mean_pairwise_cosine(torch.tensor([2.0, 0.0]), 2)   # two equal directions
    1.0
    """
    if unit_sum.numel() == 0 or count < 2:
        return float("nan")
    total = unit_sum.double()
    return (float(total.dot(total)) - count) / (count * (count - 1))


def _total(vectors: Sequence[Tensor]) -> Tensor:
    total = vectors[0].to(torch.float64, copy=True)
    for vector in vectors[1:]:
        total.add_(vector)
    return total
