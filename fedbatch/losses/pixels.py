"""Cross-entropy of images whose pixels have classes."""

import torch.nn.functional as F
from torch import Tensor

from fedbatch.losses.examples import NO_LABEL, Reduction


class PixelCrossEntropy:
    """Softmax cross-entropy in nats of an image: the mean over its pixels that have a class, then over images.

    Unlike torch's, which is a mean over all pixels of a batch, an image counts as much with few labelled pixels.

    >>> import torch
    >>> labels = torch.tensor([[[0, 1]], [[1, -100]]])
    >>> round(float(PixelCrossEntropy()(torch.zeros(2, 4, 1, 2), labels)), 4)   # ln 4
    1.3863
    """

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (batch, classes, H, W) against ``labels`` (batch, H, W), a scalar or (batch,) for "none".

        A pixel with the label -100 is left out; an image without any label has the loss 0.
        """
        each = F.cross_entropy(logits, labels, reduction="none", ignore_index=NO_LABEL).flatten(1)
        own = each.sum(dim=1) / (labels != NO_LABEL).flatten(1).sum(dim=1).clamp(min=1)
        return own if reduction == "none" else own.mean() if reduction == "mean" else own.sum()
