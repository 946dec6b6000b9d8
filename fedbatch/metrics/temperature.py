"""Temperature scaling (Guo et al. 2017): logits over one number, which changes confidences and no prediction.

What is fitted is ``a = 1 / T``, in which the mean of -ln p is convex. All it takes are sums that add up over clients,
so a federated fit is that of the pooled examples.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbatch.losses.examples import by_example
from fedbatch.metrics.bins import BinSums

Floats = npt.NDArray[np.float64]

LEAST, MOST = 0.05, 20.0
"""Range of temperatures. Where every held-out example is right, no temperature is low enough."""
TOLERANCE, MOST_STEPS = 1e-12, 60
GRID = 2 ** (torch.arange(61, dtype=torch.float64) / 12 - 2)
"""Temperatures from 1/4 to 8 that are compared where there is no slope to follow, 6 % apart."""
HALVINGS = 7
"""Of the range of `GRID` by a private fit: to 3 %."""


def newton(sums: Callable[[float], tuple[float, float, float]]) -> float:
    """The temperature in [0.05, 20] with the least sum of -ln p, by Newton steps that never leave the bracket.

    Args:
        sums: of -ln p, and of its first and second derivative, at an inverse temperature; one message each.

    Returns:
        1 where there is nothing to fit.

    >>> round(newton(lambda a: ((a - 0.5) ** 2, 2 * (a - 0.5), 2.0)), 6)   # least at a = 1/2
    2.0
    """

    def derivatives(inverse: Floats) -> tuple[Floats, Floats]:
        _, slope, curvature = sums(float(inverse[0]))
        return np.array([slope]), np.array([curvature])

    return float(newton_each(derivatives, 1)[0])


def newton_each(derivatives: Callable[[Floats], tuple[Floats, Floats]], count: int) -> Floats:
    """The temperatures (count,) of `newton` for many clients at once.

    Args:
        derivatives: first and second (count,) of each client's sum of -ln p, at inverse temperatures (count,).
        count: number of clients.
    """
    low, high, inverse = (np.full(count, value) for value in (1 / MOST, 1 / LEAST, 1.0))
    moving = np.ones(count, dtype=bool)
    for _ in range(MOST_STEPS):
        slope, curvature = derivatives(inverse)
        moving &= slope != 0
        if not moving.any():
            break
        low, high = np.where(slope < 0, inverse, low), np.where(slope < 0, high, inverse)
        step = np.divide(slope, curvature, out=np.full(count, np.inf), where=curvature > 0)
        stepped = inverse - step
        following = np.where((low < stepped) & (stepped < high), stepped, np.sqrt(low * high))
        change, inverse = np.abs(following - inverse), np.where(moving, following, inverse)
        moving &= change > TOLERANCE * inverse
    return 1 / inverse


def least_soft_error(sums: Tensor) -> float:
    """The temperature of `GRID` with the least soft-binned calibration error, from ``soft_bins`` sums at ``1 / GRID``.

    Post-hoc SB-ECE (Karandikar et al. 2021); unlike -ln p it has more than one minimum, hence the grid. 1 where there
    is nothing to fit.
    """
    errors = torch.tensor([BinSums.of_vector(row).error("l2") for row in sums.view(len(GRID), -1)])
    return 1.0 if errors.isnan().any() else float(GRID[int(errors.argmin())])


def bisect(slope: Callable[[float], float]) -> float:
    """The temperature in [1/4, 8] where the slope of the sum of -ln p in ``1 / T`` changes sign, by seven halvings.

    For slopes with noise: a wrong turn needs a slope that noise can overturn, and then it is near the minimum.

    >>> round(bisect(lambda a: a - 0.5), 1)
    2.0
    """
    low, high = -3.0, 2.0  # log2 of 1 / T
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(2**middle) < 0 else (low, middle)
    return float(2 ** (-(low + high) / 2))


def slopes(logits: Tensor, labels: Tensor, inverse: float) -> Tensor:
    """Slope of each example's -ln p in ``1 / T``, ``E z - z_y`` under the scaled prediction, (batch,).

    ``logits`` (batch, ..., classes), ``labels`` (batch, ...); of a sequence, the mean over its labelled positions.
    """
    expected = ((inverse * logits).softmax(dim=-1) * logits).sum(dim=-1)
    of_label = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return by_example(expected - of_label, labels, "none")
