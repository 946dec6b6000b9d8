"""Cross-entropy that pays for low entropy."""

import torch
from torch import Tensor

from fedbatch.losses.examples import Reduction, by_example, log_probability


class ConfidencePenalty:
    """``-ln p - beta H`` with p the label's probability and H the prediction's entropy, in nats (Pereyra et al. 2017).

    Args:
        beta: at least 0; 0 is cross-entropy.

    >>> abs(round(float(ConfidencePenalty(beta=1.0)(torch.zeros(1, 4), torch.tensor([0]))), 4))   # ln 4 - ln 4
    0.0
    """

    per_example = True

    def __init__(self, beta: float):
        if not beta >= 0:
            raise ValueError(f"beta must be at least 0 (got {beta})")
        self.beta = beta

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (..., classes) against ``labels`` (batch,) or (batch, positions), as in `by_example`."""
        log_probs = logits.log_softmax(dim=-1)
        entropy = -torch.sum(log_probs.exp() * log_probs, dim=-1)
        return by_example(-log_probability(logits, labels) - self.beta * entropy, labels, reduction)
