"""Sums over bins of probability: all that a calibration error needs to know of the predictions, and they add up.

Bins are ``(low, high]``; the first also holds 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["l1", "l2", "max"]
SMALLEST_COUNT = 1e-5
"""What an empty bin is divided by; a soft bin may well hold less than one prediction."""
SECTIONS, PASSES = 256, 8
"""Into how many parts [0, 1] is cut for an equal-mass edge, and how often: then float64 neighbours are told apart."""


@dataclass(frozen=True)
class BinSums:
    """Sums over the predictions in each of M bins, float64 (..., M): additive over clients, three numbers a bin.

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

    @classmethod
    def of_vector(cls, values: Tensor) -> "BinSums":
        """The sums that `vector` wrote."""
        return cls(*values.view(3, -1))

    def vector(self) -> Tensor:
        """The sums one after the other, (3 M,), as a client sends them."""
        return torch.cat([self.count, self.confidence, self.correct])

    def __add__(self, other: "BinSums") -> "BinSums":
        return BinSums(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    def error(self, norm: Norm = "l1", debias: bool = False) -> float:
        """Calibration error of the sums (M,) of one pool, in [0, 1]; NaN without predictions. See `errors`."""
        return float(self.errors(norm, debias))

    def errors(self, norm: Norm = "l1", debias: bool = False) -> Tensor:
        """Calibration errors (...) of many pools at once, in [0, 1]; NaN where there are no predictions.

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
        share = self.count / self.count.sum(dim=-1, keepdim=True)  # 0 / 0 is the NaN of an empty pool
        count = self.count.clamp(min=SMALLEST_COUNT)
        accuracy = self.correct / count
        gap = (accuracy - self.confidence / count).abs()
        if norm == "max":
            return torch.where(share.isnan().any(dim=-1), share[..., 0], gap.amax(dim=-1))
        if norm == "l1":
            return (share * gap).sum(dim=-1)
        square = gap.square()
        if debias:
            chance = accuracy * (1 - accuracy) / (self.count - 1).clamp(min=1)
            square = torch.where(self.count > 1, square - chance, 0.0)
        return (share * square).sum(dim=-1).clamp(min=0).sqrt()


def width_edges(bins: int) -> Tensor:
    """Edges (bins + 1,) of bins of equal width on [0, 1], each the double nearest to i / bins."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1 (got {bins})")
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def mass_edges(count_up_to: Callable[[Tensor], Tensor], bins: int) -> Tensor:
    """Edges (bins + 1,) of bins of equal count, found by cutting [0, 1] ever finer and asking for counts alone.

    Counts add up over clients, so all clients together get the edges of their pooled predictions, to the bit. The first
    bins get what does not divide. An edge may lie anywhere between its two neighbours; equal values stay in one bin.

    Args:
        count_up_to: the numbers (n,) of predictions with a probability of at most each of the given ones (n,). It is
            asked nine times, by clients in as many messages.
        bins: at least 1; more than there are predictions leaves bins empty.
    """
    edges = width_edges(bins)
    part, left = divmod(int(count_up_to(edges[-1:])), bins)
    rank = torch.arange(1, bins)
    target = (rank * part + rank.clamp(max=left)).unsqueeze(1)
    low, high = torch.zeros(bins - 1, 1, dtype=torch.float64), torch.ones(bins - 1, 1, dtype=torch.float64)
    for _ in range(PASSES if bins > 1 else 0):
        cuts = low + (high - low) * width_edges(SECTIONS)[1:-1]  # (bins - 1, SECTIONS - 1)
        found = count_up_to(cuts.flatten()).view(cuts.shape)
        low = torch.where(found <= target, cuts, low).amax(dim=1, keepdim=True)
        high = torch.where(found >= target, cuts, high).amin(dim=1, keepdim=True)
        low = torch.minimum(low, high)  # cuts with exactly the wanted count: any of them will do
    return torch.cat([edges[:1], high.flatten(), edges[-1:]])


def check_shapes(probs: Tensor, labels: Tensor) -> None:
    """Raise a ValueError unless ``probs`` are (N, classes) and ``labels`` (N,)."""
    if probs.dim() != 2 or labels.shape != probs.shape[:1]:
        raise ValueError(f"probs must be (N, classes) and labels (N,) (got {(*probs.shape,)}, {(*labels.shape,)})")
