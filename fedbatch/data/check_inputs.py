"""Inputs of a data set of anybody's making: which are tokens, and how the others become float32."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.rows import failing, listed, spread_rows

Array = npt.NDArray[Any]

FEWEST_STEPS = 1000  # float32 values between the smallest and the largest of a feature


def are_tokens(train: Array, test: Array, per_position: bool) -> bool:
    """Whether inputs are tokens: integers of 64 bits, and of 16 or 32 where each position of a sequence has a label.

    Raises:
        ValueError: one split holds tokens and the other numbers.
    """
    tokens = [
        x.dtype.kind in "iu" and (x.dtype.itemsize == 8 or (per_position and x.ndim == 2 and x.dtype.itemsize > 1))
        for x in (train, test)
    ]
    if tokens[0] != tokens[1]:
        raise ValueError(f"dataset: train_x is {train.dtype} and test_x {test.dtype}; make them alike")
    return tokens[0]


def inputs(name: str, x: Array, tokens: bool) -> Array:
    """The inputs as float32, or as int64 where they are tokens; not copied where they are that.

    Raises:
        ValueError: text, negative tokens, numbers that are not finite or that float32 cannot tell apart.
    """
    if x.dtype.kind in "US":
        raise ValueError(f"dataset: {name} holds text; encode it as numbers")
    if tokens:
        negative = failing(x, lambda block: block >= 0)
        if negative.any():
            remedy = "for numbers, standardise them and convert with astype(np.float32)"
            raise ValueError(f"dataset: {name} is {x.dtype}, tokens, but negative in {listed(negative)}; {remedy}")
        return x.astype(np.int64, copy=False)
    if x.ndim == 1:
        raise ValueError(f"dataset: {name} has shape {x.shape}; one number an example is {name}[:, None]")
    if x.dtype.kind == "f":
        broken = failing(x, np.isfinite)
        if broken.any():
            raise ValueError(f"dataset: {name} is not a finite number in {listed(broken)}; fill or drop them")
    if x.dtype == np.float32:
        return x
    if x.dtype.itemsize > 4 or (x.dtype.kind in "iu" and x.dtype.itemsize == 4):
        _check_narrowing(name, x)
    return x.astype(np.float32)


def mapped(name: str, x: Array, scale: float | None) -> Array:
    """The inputs as they are, which are read row by row: their type, and the values of rows spread evenly over them.

    Raises:
        ValueError: a type that rows would have to be converted from, or values that are not finite.
    """
    remedy = "write the file as float32, as uint8 with dataset.scale, or as int64 tokens"
    if x.dtype not in (np.float32, np.uint8, np.int64):
        raise ValueError(f"dataset: {name} is {x.dtype}, and converting it would read all of it; {remedy}")
    if (x.dtype == np.uint8) != (scale is not None):
        told = "needs dataset.scale, e.g. 0.00392156862745098 (1 / 255)" if scale is None else "takes no dataset.scale"
        raise ValueError(f"dataset: {name} is {x.dtype} and {told}")
    if x.ndim == 1 and x.dtype != np.int64:
        raise ValueError(f"dataset: {name} has shape {x.shape}; one number an example is {name}[:, None]")
    rows = spread_rows(x.shape)
    bad = rows[failing(np.array(x[rows]), (lambda block: block >= 0) if x.dtype == np.int64 else np.isfinite)]
    if len(bad):
        wrong = "negative, though int64 are tokens," if x.dtype == np.int64 else "not a finite number"
        raise ValueError(f"dataset: {name} is {wrong} in row {bad[0]}, counted from 0; correct the file")
    return x


def _check_narrowing(name: str, x: Array) -> None:
    """Refuse what float32 cannot hold, or holds so coarsely that differences between examples are gone."""
    largest = float(np.finfo(np.float32).max)
    beyond = failing(x, lambda block: np.abs(block.astype(np.float64)) <= largest)
    remedy = "subtract the mean and divide by the standard deviation before you narrow it"
    if beyond.any():
        raise ValueError(f"dataset: {name} is beyond the range of float32 in {listed(beyond)}; {remedy}")
    low, high = (edge(x, axis=0).astype(np.float64) for edge in (np.min, np.max))
    step = np.maximum(np.abs(low), np.abs(high)) * np.finfo(np.float32).eps
    coarse = (high > low) & (high - low < FEWEST_STEPS * step)
    if coarse.any():
        where = tuple(int(each[0]) for each in np.nonzero(coarse))
        told = f"from {float(low[where])!r} to {float(high[where])!r} in feature {', '.join(map(str, where))}"
        raise ValueError(f"dataset: {name} varies too little for float32, {told}; {remedy}")
