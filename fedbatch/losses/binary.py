"""Binary cross-entropy of several labels an example."""

import torch.nn.functional as F
from torch import Tensor

from fedbatch.losses.examples import Reduction


class BCE:
    """Cross-entropy of independent labels of 0 and 1, in nats, mean over the labels of an example and over examples.

    >>> import torch
    >>> round(float(BCE()(torch.zeros(2, 3), torch.ones(2, 3))), 4)   # ln 2
    0.6931
    """

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (batch, labels) against ``labels`` of that shape, a scalar or (batch,) with "none"."""
        own = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)
        return own if reduction == "none" else own.mean() if reduction == "mean" else own.sum()
