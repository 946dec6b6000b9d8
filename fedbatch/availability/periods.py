"""Times that come again: which of them is the last one before now, without errors of rounding."""

from typing import Any

import numpy as np
import numpy.typing as npt


def last_turn(seconds: npt.ArrayLike, starts: npt.ArrayLike, period: float) -> npt.NDArray[Any]:
    """The largest whole n, as float64, with ``starts + n * period <= seconds``; broadcasts.

    The inequality holds as floating point computes it, so that who asks at ``starts + n * period`` itself gets n and
    not, by rounding, n - 1. Who waits for that time would wait for ever otherwise.

    >>> last_turn([0.5, 4.9, 5.0], 1.0, 2.0)
    array([-1.,  1.,  2.])
    """
    now, first = np.asarray(seconds, np.float64), np.asarray(starts, np.float64)
    n = np.floor((now - first) / period)
    n = np.where(first + (n + 1) * period <= now, n + 1, n)
    return np.asarray(np.where(first + n * period > now, n - 1, n))
