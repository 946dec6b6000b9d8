"""Maximum mean calibration error: calibration without bins."""

from torch import Tensor

from fedbatch.losses.examples import predictions

SMOOTHING = 1e-10
"""Added under the root, whose slope is infinite at 0."""


class MMCE:
    """Kernel norm of the calibration gaps of a batch, in [0, 1] (Kumar et al. 2018, the estimate with i = j).

    The root of ``1/N^2 sum_ij (a_i - c_i)(a_j - c_j) exp(-|c_i - c_j| / width)`` with confidences c and a = 1 where
    right; N^2 numbers of memory.

    Args:
        width: of the Laplace kernel, above 0, in confidence.

    >>> import torch
    >>> round(float(MMCE()(torch.tensor([[9.0, 0.0]]), torch.tensor([1]))), 3)   # sure and wrong
    1.0
    """

    per_example = False

    def __init__(self, width: float = 0.4):
        if not width > 0:
            raise ValueError(f"width must be above 0 (got {width})")
        self.width = width

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Error, a scalar, of ``logits`` (batch, ..., classes) against ``labels`` (batch, ...)."""
        _, confidence, correct = predictions(logits, labels)
        gap = (correct - confidence) / max(len(confidence), 1)
        kernel = (-(confidence.unsqueeze(1) - confidence).abs() / self.width).exp()
        return ((gap @ kernel @ gap).clamp(min=0) + SMOOTHING).sqrt()
