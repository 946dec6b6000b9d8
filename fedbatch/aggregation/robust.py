"""Aggregation that bounds what a few bad updates can do; each takes single updates (K, d) and gives one (d,).

They need every client's own update (which costs K times the bytes and memory of a sum), and they trust the majority:
clients that differ honestly are bounded like those that attack.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Aggregator(Protocol):
    """From the updates of a round to the one that the server steps on."""

    def __call__(self, updates: Tensor) -> Tensor:
        """The aggregate (d,) of updates (K, d), K >= 1."""
        ...


def median(updates: Tensor) -> Tensor:
    """Coordinate-wise median, the mean of the two middle values for even K (Yin et al. 2018).

    >>> median(torch.tensor([[1.0], [2.0], [1e9]])).tolist()
    [2.0]
    """
    ordered = updates.sort(dim=0).values
    middle = len(updates) // 2
    return ordered[middle] if len(updates) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True)
class TrimmedMean:
    """Coordinate-wise mean without the largest and the smallest values (Yin et al. 2018).

    Attributes:
        share: of the clients cut at each end, in [0, 0.5).
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise ValueError(f"aggregator: share must be in [0, 0.5) (got {self.share})")

    def __call__(self, updates: Tensor) -> Tensor:
        """The trimmed mean (d,) of updates (K, d)."""
        cut = int(self.share * len(updates))
        return updates.sort(dim=0).values[cut : len(updates) - cut].mean(dim=0)


@dataclass(frozen=True)
class Krum:
    """Mean of the updates that are closest to their neighbours (Blanchard et al. 2017, Krum and Multi-Krum).

    An update's score is the sum of squared distances to its ``K - adversaries - 2`` nearest others.

    Attributes:
        adversaries: f, clients that may lie; the score needs ``K > f + 2``, and the paper's proof ``K > 2 f + 2``.
        select: m, updates of least score that are averaged; 1 is Krum.
    """

    adversaries: int
    select: int = 1

    @property
    def least_clients(self) -> int:
        """Clients of a round without which no update can be scored or enough of them selected."""
        return max(self.adversaries + 3, self.select + self.adversaries)

    def __post_init__(self) -> None:
        if self.adversaries < 0 or self.select < 1:
            raise ValueError("aggregator: adversaries must be >= 0 and select >= 1")

    def __call__(self, updates: Tensor) -> Tensor:
        """The mean (d,) of the selected updates (K, d); of all, where there are too few to score."""
        neighbours = len(updates) - self.adversaries - 2
        if neighbours < 1:
            return updates.mean(dim=0)
        distances = torch.cdist(updates.double(), updates.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
        distances.fill_diagonal_(float("inf"))
        scores = distances.sort(dim=1).values[:, :neighbours].sum(dim=1)
        return updates[scores.argsort(stable=True)[: self.select]].mean(dim=0)


@dataclass(frozen=True)
class NormBound:
    """Mean of updates cut to a length (Sun et al. 2019): one client moves it by at most ``2 norm / K``.

    Attributes:
        norm: largest L2 length, > 0.
    """

    norm: float

    def __post_init__(self) -> None:
        if self.norm <= 0:
            raise ValueError(f"aggregator: norm must be > 0 (got {self.norm})")

    def __call__(self, updates: Tensor) -> Tensor:
        """The mean (d,) of bounded updates (K, d)."""
        lengths = updates.norm(dim=1, keepdim=True)
        return (updates * (self.norm / lengths.clamp(min=self.norm))).mean(dim=0)


def coordinate_median() -> Callable[[Tensor], Tensor]:
    """`median`, for a config, whose target is called once to make the aggregator."""
    return median
