"""Cross-entropy with a weight for each class, so that rare ones count more."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbatch.losses.examples import NO_LABEL, Reduction, by_example, log_probability

BALANCED = "balanced"


class WeightedCrossEntropy:
    """``-w_y ln p_y``, mean over examples, in nats.

    Unlike torch's with ``weight``, the mean is not over the weights of the batch: so an example's loss does not depend
    on the others, clients add up, and example-level privacy holds.

    Args:
        class_weights: one for each class, at least 0, or "balanced", which is as in scikit-learn: examples over classes
            and over examples of the class, in the training set. The mean weight of an example is then 1.

    >>> loss = WeightedCrossEntropy([1.0, 3.0])
    >>> round(float(loss(torch.zeros(2, 2), torch.tensor([0, 1]))), 4)   # (1 + 3) / 2 ln 2
    1.3863
    """

    per_example = True

    def __init__(self, class_weights: str | Sequence[float]):
        self.needs_all_labels = isinstance(class_weights, str)
        if self.needs_all_labels and class_weights != BALANCED:
            raise ValueError(f"class_weights must be {BALANCED}, or a number for each class (got {class_weights!r})")
        self.class_weights = () if isinstance(class_weights, str) else tuple(map(float, class_weights))
        good = all(0 <= each < float("inf") for each in self.class_weights) and any(self.class_weights)
        if not (good or self.needs_all_labels):
            raise ValueError(f"class_weights must be at least 0, and not all 0 (got {list(class_weights)})")

    def fitted(self, labels: npt.NDArray[Any], num_classes: int) -> "WeightedCrossEntropy":
        """The loss with weights for these training labels (N, ...).

        Raises:
            ValueError: as many weights as there are not classes.
        """
        if self.needs_all_labels:
            counts = np.bincount(labels[labels != NO_LABEL].ravel(), minlength=num_classes)
            balanced = counts.sum() / (num_classes * np.maximum(counts, 1)) * (counts > 0)
            return WeightedCrossEntropy(balanced.tolist())
        given = len(self.class_weights)
        if given != num_classes:
            raise ValueError(f"loss.class_weights: {given} numbers for {num_classes} classes; give one for each")
        return self

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (..., classes) against ``labels`` (batch,) or (batch, positions), as in `by_example`."""
        weight = torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)
        each = -weight[labels.clamp(min=0)] * log_probability(logits, labels)
        return by_example(each, labels, reduction)
