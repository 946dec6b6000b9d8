"""The wire schema: messages as Flower's RecordDict, and back with validation.

A message is three records on the wire: ``arrays`` (model-sized vectors), ``clients`` (one entry a client) and ``plan``
(scalars). Both ends decode through this module: a message that is not exactly what the schema says is a `MessageError`
that names the field, never a poisoned model. Nothing is ever unpickled.

Between two ends in one process nothing is written down: `ByReference` carries the message as it is, and the same checks
are made of it.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedbatch.wire.check import MessageError, SquaredLengths, check
from fedbatch.wire.held_out import (
    EvaluatePlan,
    Evaluation,
    SlopePlan,
    Sums,
    SumsPlan,
    Temperatures,
)
from fedbatch.wire.masks import DealPlan, Dealt, Keys, KeysPlan, MaskedPlan, Unmasked, UnmaskPlan
from fedbatch.wire.messages import (
    Contribution,
    Hosted,
    PrivateContribution,
    PrivatePlan,
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
from fedbatch.wire.schema import Vector

SCHEMA = 7
"""Version of the wire schema; a node with another one is refused."""

Content = (
    Hosted
    | TrainPlan
    | Contribution
    | Updates
    | PrivatePlan
    | PrivateContribution
    | KeysPlan
    | Keys
    | DealPlan
    | Dealt
    | MaskedPlan
    | UnmaskPlan
    | Unmasked
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
_WIRE_DTYPES = {"float32", "float64", "int64", "uint8"}


class ByReference(RecordDict):
    """The content of a message that does not leave the process: the message itself.

    Sender and reader share its arrays, so neither may write to them.
    """

    def __init__(self, message: Content):
        super().__init__()
        self.message = message


class Encoder:
    """Makes the contents of messages to several nodes; an array that they share is written down once.

    Args:
        by_reference: hand messages over as they are, to nodes in this process.
    """

    def __init__(self, by_reference: bool = False):
        self._by_reference = by_reference
        self._written: dict[int, tuple[Tensor, Array]] = {}  # the tensor is kept, so that its id stays its own

    def __call__(self, message: Content) -> RecordDict:
        """The RecordDict that carries ``message``."""
        if self._by_reference:
            return ByReference(message)
        arrays: dict[str, Array] = {}
        columns: dict[str, Array] = {}
        plan: dict[str, Any] = {"schema": SCHEMA, "kind": type(message).__name__}
        for field in fields(message):
            value = getattr(message, field.name)
            if isinstance(value, Tensor):
                arrays[field.name] = self._tensor(value)
            elif isinstance(value, np.ndarray):
                columns[field.name] = _array(value)
            else:
                plan[field.name] = value
        return RecordDict({"arrays": ArrayRecord(arrays), "clients": ArrayRecord(columns), "plan": ConfigRecord(plan)})

    def _tensor(self, tensor: Tensor) -> Array:
        if id(tensor) not in self._written:
            self._written[id(tensor)] = tensor, _array(tensor.detach().cpu().numpy())
        return self._written[id(tensor)][1]


def encode(message: Content) -> RecordDict:
    """The RecordDict that carries ``message``."""
    return Encoder()(message)


def reply(message: Content, question: RecordDict) -> RecordDict:
    """The content that answers ``question``: by reference if it came so."""
    return Encoder(isinstance(question, ByReference))(message)


def kind_of(record: RecordDict) -> str:
    """The name of the message in a record, or what stands in its place."""
    if isinstance(record, ByReference):
        return type(record.message).__name__
    return str(dict(record.config_records.get("plan", {})).get("kind"))


def decode(kind: type[Schema], record: RecordDict, lengths: Mapping[str, int] | None = None) -> Schema:
    """Read and validate a message of ``kind``; see `decode_measured`."""
    return decode_measured(kind, record, lengths)[0]


def decode_measured(
    kind: type[Schema], record: RecordDict, lengths: Mapping[str, int] | None = None
) -> tuple[Schema, SquaredLengths]:
    """Read and validate a message of ``kind``, and give it with the squared lengths of its vectors.

    Args:
        kind: the dataclass expected.
        record: content of the Flower message.
        lengths: required length of named vectors, e.g. ``{"update_sum": d}``.

    Raises:
        MessageError: a key, dtype, shape, length or value that the schema does not allow.
    """
    message = record.message if isinstance(record, ByReference) else _read(kind, record)
    if not isinstance(message, kind):
        raise MessageError(f"expected a {kind.__name__} (got a {type(message).__name__})")
    return message, check(message, lengths or {})


def _read(kind: type[Schema], record: RecordDict) -> Schema:
    """The message that is written down in a record, its values as they came."""
    if set(record.array_records) != {"arrays", "clients"} or set(record.config_records) != {"plan"}:
        raise MessageError(f"records must be arrays, clients and plan (got {sorted(record)})")
    plan = dict(record["plan"])
    if (plan.pop("schema", None), plan.pop("kind", None)) != (SCHEMA, kind.__name__):
        raise MessageError(f"expected a {kind.__name__} of schema {SCHEMA}; do both ends run the same fedbatch?")
    values: dict[str, Any] = {**plan}
    values |= {name: _from_numpy(name, _numpy(name, array)) for name, array in record.array_records["arrays"].items()}
    values |= {name: _numpy(name, array) for name, array in record.array_records["clients"].items()}
    names = {field.name for field in fields(kind)}
    if set(values) != names:
        raise MessageError(f"{kind.__name__} must have {sorted(names)} (got {sorted(values)})")
    return kind(**values)


def array_bytes(message: Content) -> int:
    """Bytes of the arrays of a message on the wire."""
    total = 0
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Tensor):
            value = np.broadcast_to(np.zeros((), str(value.dtype).removeprefix("torch.")), value.shape)
        if isinstance(value, np.ndarray):
            total += len(_npy_header(value.dtype.str, value.shape)) + value.nbytes
    return total


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


def _from_numpy(name: str, values: Vector) -> Tensor:
    if values.dtype not in (np.float32, np.float64):
        raise MessageError(f"{name} must be float32 or float64 (got {values.dtype})")
    return torch.from_numpy(values)
