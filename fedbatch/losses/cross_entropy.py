"""Cross-entropy, with optional label smoothing."""

import torch.nn.functional as F
from torch import Tensor

from fedbatch.losses.examples import Reduction, by_example


class CrossEntropy:
    """Softmax cross-entropy in nats.

    Args:
        label_smoothing: in [0, 1); the target is ``(1 - s) * one_hot + s / classes`` (Szegedy et al. 2016, sec. 7).

    >>> import torch
    >>> round(float(CrossEntropy()(torch.zeros(2, 4), torch.tensor([0, 3]))), 4)   # ln 4
    1.3863
    """

    per_example = True
    """The loss of a batch is the mean of its examples' own losses, so gradients split by example."""

    @property
    def is_plain_cross_entropy(self) -> bool:
        """Whether nothing is added to ``-log softmax``, for executors that compute it by themselves."""
        return self.label_smoothing == 0

    def __init__(self, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1) (got {label_smoothing}); use 0 for none")
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (batch, classes) against ``labels`` (batch,), a scalar or (batch,) with "none".

        With a label a position, (batch, positions, classes) against (batch, positions), an example is a sequence, and
        its loss is the mean over the positions whose label is not -100; 0 where there is none.
        """
        if labels.dim() == 1:
            return F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=self.label_smoothing)
        flat = F.cross_entropy(
            logits.flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=self.label_smoothing
        )
        return by_example(flat.view(labels.shape), labels, reduction)
