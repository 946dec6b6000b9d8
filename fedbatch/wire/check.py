"""What the wire schema asks of a message, whether it was written down or handed over: kinds, ranges and lengths."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.wire.schema import Column, Vector, columns_of, types_of


class MessageError(ValueError):
    """A message does not follow the schema; the text names the field."""


def require(holds: bool, what: str) -> None:
    """Refuse a message for which something does not hold.

    Raises:
        MessageError: saying so.
    """
    if not holds:
        raise MessageError(what)


SquaredLengths = Mapping[str, float]
"""Of the vectors of a message that are not empty, by name. Values below 1e-19 may count as 0 in those of float32."""

columns = cache(columns_of)
types = cache(types_of)


def check(message: Any, lengths: Mapping[str, int]) -> SquaredLengths:
    """Check every field of a message, and the lengths of named vectors.

    Returns:
        What this had to find out of its vectors, so that nobody passes over them again.

    Raises:
        MessageError: a kind, dtype, shape, length or value that the schema does not allow.
    """
    schema: Any = type(message)
    for name, kind in types(schema).items():
        value = getattr(message, name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise MessageError(f"{name} must be a {kind.__name__} (got {type(value).__name__})")
    tensors = {name: value for name, value in vars(message).items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if value.dtype not in (torch.float32, torch.float64):
            raise MessageError(f"{name} must be float32 or float64 (got {value.dtype})")
        _check_shape(name, value.shape)
    squares = _squared_lengths(tensors)
    for name, column in columns(schema).items():
        _check_column(name, column, getattr(message, name))
    _check_lengths(message, schema, lengths)
    return squares


def _squared_lengths(tensors: Mapping[str, Tensor]) -> SquaredLengths:
    """One quick pass over finite vectors; the host waits for a device once. A slower one is for what overflows."""
    filled = {name: values for name, values in tensors.items() if values.numel()}
    squares: dict[str, float] = {}
    for device in {values.device for values in filled.values()}:
        here = {name: values for name, values in filled.items() if values.device == device}
        found = torch.stack([torch.dot(values, values).double() for values in here.values()])
        squares.update(zip(here, found.tolist(), strict=True))
    for name, square in squares.items():
        if not math.isfinite(square):
            if not filled[name].isfinite().all():
                raise MessageError(f"{name} has values that are not finite")
            squares[name] = float(filled[name].double().square().sum())
    return squares


def _check_column(name: str, column: Column, values: Vector) -> None:
    _check_shape(name, values.shape)
    if values.dtype != np.dtype(column.dtype):
        raise MessageError(f"{name} must be {column.dtype} (got {values.dtype})")
    if not len(values):
        return
    if column.dtype == "float64" and not np.isfinite(values).all():
        raise MessageError(f"{name} has values that are not finite")
    if (column.sign == "positive" and values.min() <= 0) or (column.sign == "not negative" and values.min() < 0):
        raise MessageError(f"{name} must {'be positive' if column.sign == 'positive' else 'not be negative'}")


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 1:
        raise MessageError(f"{name} must be a vector (got shape {tuple(shape)})")


def _check_lengths(message: Any, schema: Any, lengths: Mapping[str, int]) -> None:
    count = len(message.clients)
    for name, column in columns(schema).items():
        size = len(getattr(message, name))
        if column.length != "any" and size != count and not (column.length == "clients or none" and size == 0):
            raise MessageError(f"{name} must have one entry for each of {count} clients (got {size})")
    for name, length in lengths.items():
        if len(getattr(message, name)) != length:
            raise MessageError(f"{name} must have length {length} (got {len(getattr(message, name))})")
    if count and not (np.diff(message.clients) > 0).all():
        raise MessageError("clients must be distinct and in ascending order")
