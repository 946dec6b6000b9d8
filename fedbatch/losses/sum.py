"""A loss and another one beside it."""

from collections.abc import Callable

from torch import Tensor

from fedbatch.losses.examples import Reduction

Loss = Callable[..., Tensor]


class Sum:
    """``primary + weight * secondary``, for instance cross-entropy and a soft calibration error.

    Args:
        primary: what is learnt.
        secondary: what is added, such as `SBECE`.
        weight: of the second, at least 0; with 0 the second is not computed, and the sum is the first alone.

    Attributes:
        counted: the parts that count: both, or with weight 0 the first.
        per_example: whether all of them are; else the sum has no values by example either.
    """

    def __init__(self, primary: Loss, secondary: Loss, weight: float):
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0 (got {weight})")
        self.primary, self.secondary, self.weight = primary, secondary, weight
        self.counted = (primary, secondary) if weight else (primary,)
        self.per_example = all(getattr(loss, "per_example", False) for loss in self.counted)

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (batch, ..., classes) against ``labels`` (batch, ...), a scalar or (batch,) with "none".

        Raises:
            ValueError: a reduction other than "mean" where a part couples examples.
        """
        if reduction != "mean" and not self.per_example:
            raise ValueError(f'reduction must be "mean" for a loss that couples examples (got "{reduction}")')
        options = (reduction,) if self.per_example else ()
        value = self.primary(logits, labels, *options)
        return value + self.weight * self.secondary(logits, labels, *options) if self.weight else value
