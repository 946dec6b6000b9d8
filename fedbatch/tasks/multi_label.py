"""Several labels of 0 and 1 an example: F1 from counts that add up, AUROC from histograms of scores."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbatch.core.scores import Score
from fedbatch.data.label_rules import MANY_LABELS, LabelRule
from fedbatch.losses.binary import BCE
from fedbatch.tasks.protocol import Floats, with_known

MACRO = Score("macro_f1", "F1 of each label, mean over labels; 0 for a label that is never predicted", "higher", 0, 1)
MICRO = Score("micro_f1", "F1 of all labels counted together", "higher", 0, 1)
AUROC = Score("auroc", "area under the ROC curve, mean over labels of which both values occur", "higher", 0, 1)
AUROC_ERROR = Score("auroc_error", "by how much the bins may have moved the area, at most", "", 0, 0.5)

WIDEST, FINE = 12.0, 0.1
"""Logits beyond are in the outermost bins, where probabilities are within 1e-5 of 0 or 1; below, bins are of one width,
and above as wide as their logit asks for: 0.005 and 5 % with 200 bins."""


@dataclass(frozen=True)
class MultiLabel:
    """Labels (N, C) of 0 and 1; logits (N, C), one a label. A label is predicted where its logit is above 0.

    AUROC is that of logits in bins from -12 to 12, the narrower the nearer to 0. Pairs in one bin count one half, and
    the error that this can make is a column beside it.

    Args:
        auroc_bins: bins of the histograms; 0 leaves AUROC out, which saves 2 numbers a bin and label of each client.
    """

    auroc_bins: int = 200

    outputs: int = field(init=False, default=0)
    at: Floats = field(init=False, default_factory=lambda: np.zeros(0))
    rule: LabelRule = field(init=False, default=MANY_LABELS)
    score: str = field(init=False, default="macro_f1")
    class_axis: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.auroc_bins < 0 or self.auroc_bins == 1:
            raise ValueError(f"task.auroc_bins must be 0 for none, or at least 2 (got {self.auroc_bins})")

    @property
    def scores(self) -> tuple[Score, ...]:
        """Those of counts, and of histograms where there are any."""
        return (MACRO, MICRO, AUROC, AUROC_ERROR) if self.auroc_bins else (MACRO, MICRO)

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "MultiLabel":
        """Of as many labels as there are columns."""
        return with_known(self, outputs=labels.shape[1])

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """Float32, as binary cross-entropy has them."""
        return torch.from_numpy(labels.astype(np.float32))

    def loss(self) -> BCE:
        """Binary cross-entropy."""
        return BCE()

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """That of the targets."""
        return targets

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """Random logits, and labels of both values."""
        source = torch.Generator().manual_seed(0)
        logits = torch.randn(6, self.outputs, generator=source, dtype=torch.float64)
        return logits, (torch.arange(6 * self.outputs).reshape(6, -1) % 2).double()

    def readable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities, and labels as whole numbers."""
        return outputs.sigmoid(), targets.long()

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """Right and wrong positives and missed ones of each label, then histograms of those that are 1 and 0."""
        predicted, true = outputs > 0, targets > 0.5
        counts = [predicted & true, predicted & ~true, ~predicted & true]
        found = torch.cat(counts, dim=1).double()
        if not self.auroc_bins:
            return found
        share = torch.asinh(outputs.double() / FINE) / math.asinh(WIDEST / FINE)
        place = ((share + 1) * (self.auroc_bins / 2)).nan_to_num()
        bins = place.floor().clamp(0, self.auroc_bins - 1).long()
        histogram = torch.nn.functional.one_hot(bins, self.auroc_bins).double()
        sides = [(histogram * side[..., None]).flatten(1) for side in (true, ~true)]
        return torch.cat([found, *sides], dim=1)

    def bounds(self) -> Floats:
        """Counts."""
        size = self.outputs * (3 + 2 * self.auroc_bins)
        return np.stack([np.zeros(size), np.ones(size)])

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """F1 of counts, and the area of histograms."""
        right, false, missed = np.split(sums[..., : 3 * self.outputs], 3, axis=-1)
        there = np.asarray(counts) > 0
        macro = _f1(right, false, missed).mean(axis=-1)
        micro = _f1(right.sum(axis=-1), false.sum(axis=-1), missed.sum(axis=-1))
        found = {"macro_f1": np.where(there, macro, np.nan), "micro_f1": np.where(there, micro, np.nan)}
        if self.auroc_bins:
            histograms = sums[..., 3 * self.outputs :].reshape(*sums.shape[:-1], 2, self.outputs, self.auroc_bins)
            area, error = _area(histograms[..., 0, :, :], histograms[..., 1, :, :])
            found |= {"auroc": area, "auroc_error": error}
        return found

    def facts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}


def _f1(right: Floats, false: Floats, missed: Floats) -> Floats:
    """2 right / (2 right + false + missed); 0 where a label is neither predicted nor there."""
    whole = 2 * right + false + missed
    return np.divide(2 * right, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


def _area(ones: Floats, zeros: Floats) -> tuple[Floats, Floats]:
    """Mean area (...) over labels, and its largest error, from counts (..., C, bins) of logits of 1 and of 0."""
    pairs = ones.sum(axis=-1) * zeros.sum(axis=-1)
    below = np.cumsum(zeros, axis=-1) - zeros
    tied = (ones * zeros).sum(axis=-1) / 2
    known = pairs > 0
    share = [np.divide(each, pairs, out=np.zeros(pairs.shape), where=known) for each in ((ones * below).sum(-1), tied)]
    labels = known.sum(axis=-1)
    above, half = (
        np.divide(each.sum(axis=-1), labels, out=np.full(labels.shape, np.nan), where=labels > 0) for each in share
    )
    return above + half, half
