"""The wire schema: messages as Flower's RecordDict, and back with validation.

A message is three records on the wire: ``arrays`` (model-sized vectors), ``clients`` (one entry a client) and ``plan``
(scalars). Both ends decode through this module: a message that is not exactly what the schema says is a `MessageError`
that names the field, never a poisoned model. Nothing is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedbatch.wire.messages import (
    Contribution,
    EvaluatePlan,
    Evaluation,
    Hosted,
    PrivateContribution,
    PrivatePlan,
    SlopePlan,
    Sums,
    SumsPlan,
    Temperatures,
    TrainPlan,
    Updates,
)
from fedbatch.wire.queries import (
    ClusterPlan,
    CountPlan,
    Counts,
    Labelled,
    LocalClusters,
    OwnPlan,
    PickPlan,
    Scored,
    ScorePlan,
)
from fedbatch.wire.schema import Column, Vector, columns_of, types_of

SCHEMA = 3
"""Version of the wire schema; a node with another one is refused."""


class MessageError(ValueError):
    """A message does not follow the schema; the text names the field."""


Content = (
    Hosted
    | TrainPlan
    | Contribution
    | Updates
    | PrivatePlan
    | PrivateContribution
    | EvaluatePlan
    | Evaluation
    | SumsPlan
    | SlopePlan
    | Sums
    | Temperatures
    | OwnPlan
    | Labelled
    | ClusterPlan
    | LocalClusters
    | ScorePlan
    | Scored
    | CountPlan
    | Counts
    | PickPlan
)
Schema = TypeVar("Schema", bound=Content)
COLUMNS: dict[type, dict[str, Column]] = {kind: columns_of(kind) for kind in get_args(Content)}
TYPES: dict[type, dict[str, type]] = {kind: types_of(kind) for kind in get_args(Content)}
_WIRE_DTYPES = {"float32", "float64", "int64"}


def encode(message: Content) -> RecordDict:
    """The RecordDict that carries ``message``."""
    arrays: dict[str, Array] = {}
    columns: dict[str, Array] = {}
    plan: dict[str, Any] = {"schema": SCHEMA, "kind": type(message).__name__}
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Tensor):
            arrays[field.name] = _array(value.detach().cpu().numpy())
        elif isinstance(value, np.ndarray):
            columns[field.name] = _array(value)
        else:
            plan[field.name] = value
    return RecordDict({"arrays": ArrayRecord(arrays), "clients": ArrayRecord(columns), "plan": ConfigRecord(plan)})


def decode(kind: type[Schema], record: RecordDict, lengths: Mapping[str, int] | None = None) -> Schema:
    """Read and validate a message of ``kind``.

    Args:
        kind: the dataclass expected.
        record: content of the Flower message.
        lengths: required length of named vectors, e.g. ``{"update_sum": d}``.

    Raises:
        MessageError: a key, dtype, shape, length or value that the schema does not allow.
    """
    if set(record.array_records) != {"arrays", "clients"} or set(record.config_records) != {"plan"}:
        raise MessageError(f"records must be arrays, clients and plan (got {sorted(record)})")
    plan = dict(record["plan"])
    if (plan.pop("schema", None), plan.pop("kind", None)) != (SCHEMA, kind.__name__):
        raise MessageError(f"expected a {kind.__name__} of schema {SCHEMA}; do both ends run the same fedbatch?")
    values: dict[str, Any] = {**plan}
    values |= {name: _tensor(name, array) for name, array in record.array_records["arrays"].items()}
    columns = COLUMNS[kind]
    for name, array in record.array_records["clients"].items():
        if name not in columns:
            raise MessageError(f"{kind.__name__} has no column {name}")
        values[name] = _column(name, columns[name], array)
    names = {field.name for field in fields(kind)}
    if set(values) != names:
        raise MessageError(f"{kind.__name__} must have {sorted(names)} (got {sorted(values)})")
    message = kind(**values)
    _check_types(message)
    _check_lengths(message, lengths or {})
    return message


def _check_types(message: Any) -> None:
    for name, kind in TYPES[type(message)].items():
        value = getattr(message, name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise MessageError(f"{name} must be a {kind.__name__} (got {type(value).__name__})")


def _check_lengths(message: Any, lengths: Mapping[str, int]) -> None:
    count = len(message.clients)
    for name, column in COLUMNS[type(message)].items():
        size = len(getattr(message, name))
        if column.length != "any" and size != count and not (column.length == "clients or none" and size == 0):
            raise MessageError(f"{name} must have one entry for each of {count} clients (got {size})")
    for name, length in lengths.items():
        if len(getattr(message, name)) != length:
            raise MessageError(f"{name} must have length {length} (got {len(getattr(message, name))})")
    if count and not (np.diff(message.clients) > 0).all():
        raise MessageError("clients must be distinct and in ascending order")


def _array(values: Vector) -> Array:
    """A Flower array, with the bytes that ``numpy.save`` would write but without its chunked copying."""
    values = np.ascontiguousarray(values)
    header = _npy_header(values.dtype.str, values.shape)
    return Array(
        dtype=str(values.dtype),
        shape=tuple(values.shape),
        stype="numpy.ndarray",
        data=header + values.tobytes(),
    )


def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    # NPY format version 1.0: magic, version, little-endian header length, a dict padded so that data is 64-aligned.
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin1")
    padding = -(10 + len(text) + 1) % 64
    return b"\x93NUMPY\x01\x00" + (len(text) + padding + 1).to_bytes(2, "little") + text + b" " * padding + b"\n"


def _numpy(name: str, array: Array) -> Vector:
    header = _npy_header(np.dtype(array.dtype).str, tuple(array.shape)) if array.dtype in _WIRE_DTYPES else b""
    if header and array.data.startswith(header) and len(array.shape) == 1:
        # As `_array` wrote it: the general reader parses the header as Python source, 0.05 ms a time.
        payload = array.data[len(header) :]
        if len(payload) == array.shape[0] * np.dtype(array.dtype).itemsize:
            return np.frombuffer(bytearray(payload), dtype=array.dtype)
    try:
        values = array.numpy()
    except Exception as error:
        raise MessageError(f"{name} is not a readable array: {error}") from error
    if values.ndim != 1:
        raise MessageError(f"{name} must be a vector (got shape {values.shape})")
    return values


def _tensor(name: str, array: Array) -> Tensor:
    values = _numpy(name, array)
    if values.dtype not in (np.float32, np.float64):
        raise MessageError(f"{name} must be float32 or float64 (got {values.dtype})")
    with np.errstate(over="ignore"):  # an overflow only sends us to the slower test
        quick = np.dot(values, values)
    if not np.isfinite(quick) and not np.isfinite(values).all():
        raise MessageError(f"{name} has values that are not finite")
    return torch.from_numpy(values)


def _column(name: str, column: Column, array: Array) -> Vector:
    values = _numpy(name, array)
    if values.dtype != np.dtype(column.dtype):
        raise MessageError(f"{name} must be {column.dtype} (got {values.dtype})")
    if not np.isfinite(values).all():
        raise MessageError(f"{name} has values that are not finite")
    if (column.sign == "positive" and not (values > 0).all()) or (column.sign == "not negative" and (values < 0).any()):
        raise MessageError(f"{name} must {'be positive' if column.sign == 'positive' else 'not be negative'}")
    return values
