"""The wire schema: messages as Flower's RecordDict, and back with validation.

A message is three records on the wire: ``arrays`` (model-sized vectors), ``clients`` (one entry a client) and ``plan``
(scalars). Both ends decode through this module: a message that is not exactly what the schema says is a `MessageError`
that names the field, never a poisoned model. Nothing is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

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
    Vector,
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
_LABEL_COLUMNS = {"quotas", "num_labelled", "num_unlabelled"}
_BY_GROUP = {
    "class_counts",
    "group_counts",
    "cluster_sizes",
    "groups",
    "report_groups",
    "lows",
    "thresholds",
    "histogram",
}
_INT_COLUMNS = {"clients", "batch_sizes", "num_examples", "excluded", "counts"} | _LABEL_COLUMNS | _BY_GROUP
_ANY_LENGTH = {"excluded"} | _BY_GROUP
_WIRE_DTYPES = {"float32", "float64", "int64"}
_FINITE_COLUMNS = {
    "weights",
    "sq_norms",
    "losses",
    "correct",
    "loss_sums",
    "half_dots",
    "half_sq_diffs",
    "temperatures",
}
_POSITIVE_COLUMNS = {"weights", "temperatures"}


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
    values |= {name: _column(name, array) for name, array in record.array_records["clients"].items()}
    names = {field.name for field in fields(kind)}
    if set(values) != names:
        raise MessageError(f"{kind.__name__} must have {sorted(names)} (got {sorted(values)})")
    message = kind(**values)
    _check_types(message)
    _check_lengths(message, lengths or {})
    return message


def _check_types(message: Any) -> None:
    expected = {"Tensor": Tensor, "Vector": np.ndarray, "int": int, "float": float, "str": str, "bool": bool}
    for field in fields(message):
        kind = Tensor if field.type is Tensor else expected.get(getattr(field.type, "__name__", ""), np.ndarray)
        value = getattr(message, field.name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise MessageError(f"{field.name} must be a {kind.__name__} (got {type(value).__name__})")


def _check_lengths(message: Any, lengths: Mapping[str, int]) -> None:
    count = len(message.clients)
    optional = {"half_dots", "half_sq_diffs"}
    for field in fields(message):
        value = getattr(message, field.name)
        allowed = {0, count} if field.name in optional else {count}
        if isinstance(value, np.ndarray) and field.name not in _ANY_LENGTH and len(value) not in allowed:
            raise MessageError(f"{field.name} must have one entry for each of {count} clients (got {len(value)})")
        if field.name in lengths and len(value) != lengths[field.name]:
            raise MessageError(f"{field.name} must have length {lengths[field.name]} (got {len(value)})")
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


def _column(name: str, array: Array) -> Vector:
    values = _numpy(name, array)
    dtype = np.int64 if name in _INT_COLUMNS else np.float64
    if values.dtype != dtype:
        raise MessageError(f"{name} must be {np.dtype(dtype)} (got {values.dtype})")
    if name in _FINITE_COLUMNS and not np.isfinite(values).all():
        raise MessageError(f"{name} has values that are not finite")
    if name in _POSITIVE_COLUMNS and not (values > 0).all():
        raise MessageError(f"{name} must be positive")
    if name in _INT_COLUMNS | {"sq_norms"} and (values < 0).any():
        raise MessageError(f"{name} must not be negative")
    return values
