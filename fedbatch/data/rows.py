"""Rows of an array: a block at a time, those at fault, and how a refusal names them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

NAMED = 5
SPREAD_ROWS, SPREAD_VALUES = 1000, 2**24
"""Of rows that stand for all of a file: at most so many, and about as many values."""
BLOCK_VALUES = 2**20  # 8 MiB of float64 at a time


def listed(bad: npt.NDArray[np.bool_]) -> str:
    """How many rows are marked in ``bad``, ``(rows,)``, and the numbers of the first few, counted from 0.

    >>> listed(np.array([False, True, True]))
    '2 of 3 rows (1, 2, counted from 0)'
    """
    numbers = [str(row) for row in np.flatnonzero(bad)[: NAMED + 1]]
    first = numbers[:NAMED] + ["..."] * (len(numbers) > NAMED)
    return f"{np.count_nonzero(bad):,} of {len(bad):,} rows ({', '.join(first)}, counted from 0)"


def failing(x: npt.NDArray[Any], good: Callable[[npt.NDArray[Any]], Any]) -> npt.NDArray[np.bool_]:
    """Which rows of ``x`` have a value for which ``good`` is false; a block at a time, so that no mask is large."""
    bad = np.zeros(len(x), bool)
    for rows in blocks(x):
        held = good(x[rows])
        if not held.all():
            bad[rows] = ~held.reshape(len(held), -1).all(axis=1)
    return bad


def blocks(x: npt.NDArray[Any]) -> Iterator[slice]:
    """Consecutive rows of ``x``, about BLOCK_VALUES values at a time."""
    step = max(1, BLOCK_VALUES // max(1, x[:1].size))
    return (slice(start, start + step) for start in range(0, len(x), step))


def spread_rows(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Positions of some of the rows of an array, ascending, the first and the last among them.

    >>> spread_rows((5, 2**22)).tolist()
    [0, 1, 2, 4]
    """
    count = int(np.clip(SPREAD_VALUES // max(1, int(np.prod(shape[1:]))), 2, SPREAD_ROWS))
    return np.unique(np.linspace(0, shape[0] - 1, count).astype(np.int64))
