"""Losses of real numbers: squared, absolute, and Huber's, which is both."""

import torch.nn.functional as F
from torch import Tensor

from fedbatch.losses.examples import Reduction


class MSE:
    """Squared error, mean over the numbers of an example and over examples.

    >>> import torch
    >>> float(MSE()(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)))
    5.0
    """

    per_example = True

    def __call__(self, outputs: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``outputs`` (batch, ...) against ``labels`` of the same shape, a scalar or (batch,) with "none"."""
        return _reduced(F.mse_loss(outputs, labels, reduction="none"), reduction)


class MAE:
    """Absolute error, mean over the numbers of an example and over examples; robust to labels that are far off."""

    per_example = True

    def __call__(self, outputs: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``outputs`` (batch, ...) against ``labels`` of the same shape, a scalar or (batch,) with "none"."""
        return _reduced(F.l1_loss(outputs, labels, reduction="none"), reduction)


class Huber:
    """``error^2 / 2`` up to ``delta``, and ``delta (|error| - delta / 2)`` beyond (Huber 1964).

    Args:
        delta: where a square becomes a line, above 0, in units of the labels that are trained on.

    >>> import torch
    >>> Huber(delta=1.0)(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1), reduction="none").tolist()
    [0.125, 2.5]
    """

    per_example = True

    def __init__(self, delta: float):
        if not delta > 0:
            raise ValueError(f"delta must be above 0 (got {delta}); for a square throughout use loss=mse")
        self.delta = delta

    def __call__(self, outputs: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``outputs`` (batch, ...) against ``labels`` of the same shape, a scalar or (batch,) with "none"."""
        return _reduced(F.huber_loss(outputs, labels, reduction="none", delta=self.delta), reduction)


def _reduced(each: Tensor, reduction: Reduction) -> Tensor:
    own = each.flatten(1).mean(dim=1) if each.dim() > 1 else each
    return own if reduction == "none" else own.mean() if reduction == "mean" else own.sum()
