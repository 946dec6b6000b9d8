"""How well a predicted critical batch size agrees with a measured one, over tasks and decades."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DRAWS = 2000


@dataclass(frozen=True)
class Agreement:
    """Of the logarithms of n pairs.

    Attributes:
        goals: n.
        tasks: of which the goals are.
        decades: that the measured sizes span.
        r2: squared correlation.
        r2_interval: middle 90 % of it, tasks drawn with replacement.
        r2_without: least and most of it with one task left out.
        equality: 1 - sum of squares about the line of equality / about the mean of the measured.
        factor: `rms_factor` of predicted / measured.
        median: of predicted / measured.
        within_2: pairs within a factor of two.
        within_tasks: squared correlation of the distances from the task's means.
        between_tasks: squared correlation of the tasks' means.
    """

    goals: int
    tasks: int
    decades: float
    r2: float
    r2_interval: tuple[float, float]
    r2_without: tuple[float, float]
    equality: float
    factor: float
    median: float
    within_2: int
    within_tasks: float
    between_tasks: float


def agreement(predicted: npt.ArrayLike, measured: npt.ArrayLike, tasks: npt.ArrayLike) -> Agreement:
    """Of (n,) sizes > 0; pairs whose prediction is not finite are left out.

    Raises:
        ValueError: fewer than three tasks.
    """
    x, y = np.log(np.asarray(predicted, float)), np.log(np.asarray(measured, float))
    known = np.isfinite(x)
    x, y, owner = x[known], y[known], np.asarray(tasks)[known]
    names, index = np.unique(owner, return_inverse=True)
    if len(names) < 3:
        raise ValueError(f"an agreement needs three tasks (got {len(names)})")
    counts = np.bincount(index)
    means = [np.bincount(index, values) / counts for values in (x, y)]
    rng, draws = np.random.default_rng(0), []
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    for chosen in rng.integers(len(names), size=(DRAWS, len(names))):
        drawn = np.concatenate([members[i] for i in chosen])
        draws.append(_r2(x[drawn], y[drawn]))
    low, high = np.nanquantile(draws, [0.05, 0.95])
    without = [_r2(x[index != i], y[index != i]) for i in range(len(names))]
    return Agreement(
        goals=len(x),
        tasks=len(names),
        decades=float(np.ptp(y)) / math.log(10),
        r2=_r2(x, y),
        r2_interval=(float(low), float(high)),
        r2_without=(min(without), max(without)),
        equality=float(1 - ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()),
        factor=rms_factor(np.exp(x - y)),
        median=float(np.exp(np.median(x - y))),
        within_2=int((np.abs(x - y) <= math.log(2)).sum()),
        within_tasks=_r2(x - means[0][index], y - means[1][index]),
        between_tasks=_r2(*means),
    )


def rms_factor(ratios: npt.ArrayLike) -> float:
    """What (n,) ratios > 0 are off by: the root of the mean square of their logarithms, as a factor.

    >>> rms_factor([0.5, 2.0])
    2.0
    """
    return float(np.exp(np.sqrt(np.mean(np.log(np.asarray(ratios, float)) ** 2))))


def _r2(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1] ** 2) if np.ptp(x) > 0 and np.ptp(y) > 0 else math.nan
