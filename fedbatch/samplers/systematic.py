"""Systematic sampling: cohorts of a fixed size with known chances (Madow 1949)."""

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints

Floats = npt.NDArray[np.float64]
CERTAIN = 1 - 1e-9
"""A chance from which on, but for rounding, a client is always drawn."""


def inclusion(sizes: npt.ArrayLike, count: int) -> Floats:
    """Chances (P,) in proportion to sizes (P,) > 0 and at most 1, which add up to ``count`` <= P.

    Who would have more than 1 is certain, and the others share what is left.

    >>> inclusion([1, 1, 2, 8], 2)
    array([0.25, 0.25, 0.5 , 1.  ])
    """
    weights = np.asarray(sizes, dtype=np.float64)
    certain = np.zeros(len(weights), dtype=bool)
    while True:
        rest = count - certain.sum()
        total = weights[~certain].sum()
        chances = np.where(certain, 1.0, rest * weights / total if total else 1.0)
        more = ~certain & (chances >= CERTAIN)
        if not more.any():
            return chances
        certain |= more


def systematic(chances: Floats, order: Ints, start: float) -> Ints:
    """Places (K,), ascending, each drawn with its chance; K is the sum of the chances, a whole number.

    Chances are laid end to end in some order, and every whole number after ``start`` falls into one. So of any run of
    neighbours in the order, the number that is drawn is the sum of their chances, rounded up or down.

    Args:
        chances: (P,) in (0, 1].
        order: (P,) a permutation of places; random for chances of pairs that are near independence.
        start: uniform in [0, 1).
    """
    certain = order[chances[order] >= CERTAIN]
    rest = order[chances[order] < CERTAIN]
    count = round(float(chances[rest].sum()))
    ends = np.cumsum(chances[rest])
    drawn = np.searchsorted(ends, start + np.arange(count), side="right")
    drawn = np.minimum(drawn, len(rest) - 1)  # where rounding leaves the last end below the last number
    return np.sort(np.concatenate([certain, rest[drawn]]))
