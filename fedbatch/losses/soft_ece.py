"""Expected calibration error with soft bins, so that it has a gradient (Karandikar et al. 2021).

A confidence c belongs to bin m of M to the degree ``u_m(c) = softmax_m(-(c - x_m)^2 / temperature)``, x_m the bin's
centre; as the temperature goes to 0 this becomes ordinary binning. The estimate depends on the batch: of a perfectly
calibrated model with the default arguments it averages 0.11 with 32 examples, 0.056 with 128 and 0.014 with 2048.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedbatch.losses.examples import Reduction, by_example, predictions

SMALLEST_COUNT = 1e-5
"""Least soft count of a bin that is divided by, and the share of a membership that is spread over all bins."""
SMOOTHING = 1e-10
"""Added under the root, whose slope is infinite at 0: an exactly calibrated batch has value 1e-5 and no gradient."""


class SBECE:
    """Soft-binned calibration error of a batch, ``(sum_m S_m/S |A_m - C_m|^norm)^(1/norm)``, in [0, 1].

    S_m, A_m and C_m are a bin's soft count, accuracy and mean confidence; bins divide [0, 1] (Karandikar et al. 2021,
    eq. 11).

    Args:
        bins: number M of bins.
        temperature: above 0, in squared confidence; near 1/M^2 neighbouring bins overlap.
        norm: at least 1.

    >>> loss = SBECE(bins=10)
    >>> round(float(loss(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))), 3)   # sure, half of them right
    0.5
    """

    per_example = False

    def __init__(self, bins: int = 15, temperature: float = 0.01, norm: float = 2):
        _check(bins, temperature, norm)
        self.bins, self.temperature, self.norm = bins, temperature, norm

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Error, a scalar, of ``logits`` (batch, ..., classes) against ``labels`` (batch, ...)."""
        _, confidence, correct = predictions(logits, labels)
        member = membership(confidence, centres(0.0, self.bins, confidence), self.temperature)
        count = member.sum(dim=0)
        gap = (correct - confidence) @ member / count.clamp(min=SMALLEST_COUNT)
        share = count / max(len(confidence), 1)
        return (torch.sum(share * gap.abs() ** self.norm) + SMOOTHING) ** (1 / self.norm)


class SBECELabelBinned:
    """Soft-binned error of each example against its bins' accuracies, ``1/N sum_im u_im |A_m - c_i|^norm``, in [0, 1].

    No root is taken. Bins divide [1/classes, 1], where confidences are, and every example belongs a little to every
    bin (Karandikar et al. 2021, eq. 12). Unlike `SBECE` it does not vanish where a bin's mean is right while its
    examples are not.

    Args:
        bins: number M of bins.
        temperature: above 0, in squared confidence.
        norm: at least 1.
    """

    per_example = False

    def __init__(self, bins: int = 15, temperature: float = 0.01, norm: float = 2):
        _check(bins, temperature, norm)
        self.bins, self.temperature, self.norm = bins, temperature, norm

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Error, a scalar, of ``logits`` (batch, ..., classes) against ``labels`` (batch, ...)."""
        probs, confidence, correct = predictions(logits, labels)
        middle = centres(1 / probs.shape[-1], self.bins, confidence)
        member = membership(confidence, middle, self.temperature)
        member = (1 - SMALLEST_COUNT) * member + SMALLEST_COUNT / self.bins
        accuracy = correct @ member / member.sum(dim=0).clamp(min=SMALLEST_COUNT)
        off = (accuracy - confidence.unsqueeze(1)).abs() ** self.norm
        return torch.sum(member * off) / max(len(confidence), 1)


class FrozenBins:
    """Distance of a confidence c from known accuracies A_m of soft bins on [0, 1], ``sum_m u_m(c) |A_m - c|^norm``.

    `SBECE` with accuracies that do not come from the batch: no example sees another, so that example-level privacy
    holds, provided that the accuracies are public or released privately. Labels only say which positions count.

    Args:
        accuracies: (M,) in [0, 1], from the bin next to confidence 0 to that next to 1.
        temperature: above 0, in squared confidence.
        norm: at least 1.

    >>> round(float(FrozenBins([0.5])(torch.tensor([[9.0, 0.0]]), torch.tensor([0]))), 3)   # (1/2 - 1)^2
    0.25
    """

    per_example = True

    def __init__(self, accuracies: Sequence[float], temperature: float = 0.01, norm: float = 2):
        _check(len(accuracies), temperature, norm)
        if not all(0 <= a <= 1 for a in accuracies):
            raise ValueError(f"accuracies must be in [0, 1] (got {list(accuracies)})")
        self.accuracies, self.temperature, self.norm = tuple(accuracies), temperature, norm

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (..., classes) against ``labels`` (batch,) or (batch, positions), as in `by_example`."""
        confidence = logits.softmax(dim=-1).amax(dim=-1)
        accuracy = torch.tensor(self.accuracies, dtype=logits.dtype, device=logits.device)
        member = membership(confidence, centres(0.0, len(accuracy), confidence), self.temperature)
        off = (accuracy - confidence.unsqueeze(-1)).abs() ** self.norm
        return by_example(torch.sum(member * off, dim=-1), labels, reduction)


def _check(bins: int, temperature: float, norm: float) -> None:
    if bins < 1:
        raise ValueError(f"bins must be at least 1 (got {bins})")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, or far bins would count most (got {temperature})")
    if not norm >= 1:
        raise ValueError(f"norm must be at least 1 (got {norm})")


def centres(start: float, bins: int, like: Tensor) -> Tensor:
    """Centres (M,) of equal bins from ``start`` to 1."""
    return start + (1 - start) * (torch.arange(bins, dtype=like.dtype, device=like.device) + 0.5) / bins


def membership(confidence: Tensor, centres: Tensor, temperature: float) -> Tensor:
    """How far confidences (...) belong to each bin, (..., M); adds up to 1 over bins."""
    return (-(confidence.unsqueeze(-1) - centres).square() / temperature).softmax(dim=-1)
