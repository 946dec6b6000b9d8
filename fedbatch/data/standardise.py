"""Mean 0 and standard deviation 1 by the training split, computed in float64 and narrowed only then."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.rows import blocks

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]


def standardise(train: Numbers, test: Numbers) -> list[Floats]:
    """Both splits, ``(examples, channels, ...)`` of any type of finite numbers, as float32, each channel for itself.

    A channel that is constant in training, or that varies by no more than rounding, becomes 0: nothing can be learnt
    from it. A test value may come out infinite where the training values vary by next to nothing beside it.
    """
    axes = tuple(axis for axis in range(train.ndim) if axis != 1)
    low, high = (edge(train, axes, keepdims=True).astype(np.float64) for edge in (np.min, np.max))
    # Powers of two are exact; so scaled, no square overflows or vanishes.
    exponent = -np.frexp(np.maximum(np.abs(low), np.abs(high)))[1]
    low, high = np.ldexp(low, exponent), np.ldexp(high, exponent)

    def shifted(x: Numbers) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        # From the lowest value, because what a large common value costs in digits is then lost before it matters.
        for rows in blocks(x):
            yield rows, np.ldexp(x[rows].astype(np.float64), exponent) - low

    count = train.size // max(train.shape[1], 1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(block.sum(axes, keepdims=True) for _, block in shifted(train)) / count
        variance = sum(np.square(block - mean).sum(axes, keepdims=True) for _, block in shifted(train)) / count
        constant = high - low <= 4 * np.finfo(np.float64).eps
        factor = np.where(constant, 0, 1 / np.sqrt(np.where(constant, 1, variance)))
        outputs = []
        for x in (train, test):
            out = np.empty(x.shape, np.float32)
            for rows, block in shifted(x):
                out[rows] = np.where(constant, 0, (block - mean) * factor)
            outputs.append(out)
    return outputs
