"""The Brier score as a loss."""

import torch
from torch import Tensor

from fedbatch.losses.examples import Reduction, by_example


class Brier:
    """Squared distance of the softmax from the one-hot label, summed over classes, in [0, 2] (Brier 1950).

    >>> float(Brier()(torch.zeros(1, 2), torch.tensor([0])))
    0.5
    """

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (..., classes) against ``labels`` (batch,) or (batch, positions), as in `by_example`."""
        one_hot = labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
        return by_example((logits.softmax(dim=-1) - one_hot.to(logits.dtype)).square().sum(dim=-1), labels, reduction)
