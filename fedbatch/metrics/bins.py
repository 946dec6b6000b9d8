"""Sums over bins of probability: all that a calibration error needs to know of the predictions, and they add up.

Bins are ``(low, high]``; the first also holds 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["l1", "l2", "max"]
HALVINGS = 60
"""Of [0, 1]: then neighbours in float64 are told apart."""


@dataclass(frozen=True)
class BinSums:
    """Sums over the predictions in each of M bins, float64 (M,): additive over clients, three numbers a bin.

    Attributes:
        count: number of predictions.
        confidence: sum of their probabilities.
        correct: number of those that came true.

    >>> left = BinSums.of(torch.tensor([[0.9, 0.1]]), torch.tensor([0]), width_edges(2))
    >>> right = BinSums.of(torch.tensor([[0.9, 0.1]]), torch.tensor([1]), width_edges(2))
    >>> [round(sums.error("l1"), 3) for sums in (left, right, left + right)]
    [0.1, 0.9, 0.4]
    """

    count: Tensor
    confidence: Tensor
    correct: Tensor

    @classmethod
    def of(cls, probs: Tensor, labels: Tensor, edges: Tensor) -> "BinSums":
        """Sums of the most probable classes of ``probs`` (N, classes) for ``labels`` (N,); ``edges`` (M + 1,)."""
        check_shapes(probs, labels)
        confidence, predicted = probs.max(dim=1)
        return cls.of_events(confidence, predicted == labels, edges)

    @classmethod
    def of_events(cls, probability: Tensor, happened: Tensor, edges: Tensor) -> "BinSums":
        """Sums of predicted probabilities (N,) of events that ``happened`` (N,) or not; ``edges`` (M + 1,)."""
        probability = probability.double().contiguous()
        index = torch.bucketize(probability, edges[1:-1].to(probability.device))
        zeros = probability.new_zeros(len(edges) - 1)
        values = (torch.ones_like(probability), probability, happened.double())
        return cls(*(zeros.index_add(0, index, value) for value in values))

    def __add__(self, other: "BinSums") -> "BinSums":
        return BinSums(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    def error(self, norm: Norm = "l1", debias: bool = False) -> float:
        """Calibration error in [0, 1]; NaN without predictions.

        Args:
            norm: "l1", the mean over predictions of their bin's gap between accuracy and confidence (ECE; Guo et al.
                2017); "l2", the root of the mean square; "max", the largest gap.
            debias: subtract from each squared gap what chance adds to it, ``A (1 - A) / (count - 1)``, and leave out
                bins with one prediction (Kumar et al. 2019, sec. 5.1). Only with "l2".

        Raises:
            ValueError: another norm, or ``debias`` with a norm that has no such correction.
        """
        if norm not in ("l1", "l2", "max"):
            raise ValueError(f"norm must be l1, l2 or max (got {norm})")
        if debias and norm != "l2":
            raise ValueError(f"debias is defined for norm=l2 only (got {norm})")
        if not self.count.sum():
            return float("nan")
        share, accuracy = self.count / self.count.sum(), self.correct / self.count.clamp(min=1)
        gap = (accuracy - self.confidence / self.count.clamp(min=1)).abs()
        if norm == "max":
            return float(gap.max())
        if norm == "l1":
            return float((share * gap).sum())
        square = gap.square()
        if debias:
            chance = accuracy * (1 - accuracy) / (self.count - 1).clamp(min=1)
            square = torch.where(self.count > 1, square - chance, 0.0)
        return float((share * square).sum().clamp(min=0).sqrt())


def width_edges(bins: int) -> Tensor:
    """Edges (bins + 1,) of bins of equal width on [0, 1], each the double nearest to i / bins."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1 (got {bins})")
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def mass_edges(count_up_to: Callable[[Tensor], Tensor], bins: int) -> Tensor:
    """Edges (bins + 1,) of bins of equal count, found by halving [0, 1] and asking for counts alone.

    Counts add up over clients, so all clients together get the edges of their pooled predictions, to the bit. The first
    bins get what does not divide. An edge may lie anywhere between its two neighbours; equal values stay in one bin.

    Args:
        count_up_to: the numbers of predictions with a probability of at most each of the given ones, int64.
        bins: at least 1; more than there are predictions leaves bins empty.
    """
    edges = width_edges(bins)
    part, left = divmod(int(count_up_to(edges[-1:])), bins)
    rank = torch.arange(1, bins)
    target = rank * part + rank.clamp(max=left)
    low, high = torch.zeros(bins - 1, dtype=torch.float64), torch.ones(bins - 1, dtype=torch.float64)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = count_up_to(middle)
        low = torch.where(found <= target, middle, low)
        high = torch.where(found >= target, middle, high)
    return torch.cat([edges[:1], high, edges[-1:]])


def check_shapes(probs: Tensor, labels: Tensor) -> None:
    """Raise a ValueError unless ``probs`` are (N, classes) and ``labels`` (N,)."""
    if probs.dim() != 2 or labels.shape != probs.shape[:1]:
        raise ValueError(f"probs must be (N, classes) and labels (N,) (got {(*probs.shape,)}, {(*labels.shape,)})")
