"""Focal losses: examples that are already right count less, which keeps a network from growing ever more confident."""

import torch
from torch import Tensor

from fedbatch.losses.examples import Reduction, by_example, log_probability


class Focal:
    """``-(1 - p)^gamma ln p`` with p the probability of the label, in nats (Lin et al. 2017).

    Args:
        gamma: at least 0; 0 is cross-entropy.

    >>> round(float(Focal(gamma=2.0)(torch.zeros(2, 4), torch.tensor([0, 3]))), 4)   # (3/4)^2 ln 4
    0.7798
    """

    per_example = True

    def __init__(self, gamma: float):
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0 (got {gamma})")
        self.gamma = gamma

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (..., classes) against ``labels`` (batch,) or (batch, positions), as in `by_example`."""
        log_p = log_probability(logits, labels)
        return by_example(_focal(log_p, torch.full_like(log_p, self.gamma)), labels, reduction)


class FLSD53:
    """Focal loss with gamma 5 where the label's probability is below 0.2, else 3 (Mukhoti et al. 2020, FLSD-53)."""

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (..., classes) against ``labels`` (batch,) or (batch, positions), as in `by_example`."""
        log_p = log_probability(logits, labels)
        gamma = torch.full_like(log_p, 3.0).masked_fill(log_p.detach().exp() < 0.2, 5.0)
        return by_example(_focal(log_p, gamma), labels, reduction)


def _focal(log_p: Tensor, gamma: Tensor) -> Tensor:
    """Below gamma = 1 the power is infinitely steep at p = 1; there 1 - p stops at the rounding of a number near 1."""
    rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).eps)
    return -(rest**gamma) * log_p
