"""The wire schema: what travels between server and node, and its translation to Flower's RecordDict.

A message is one frozen dataclass here and three records on the wire: ``arrays`` (model-sized vectors), ``clients`` (one
entry a client) and ``plan`` (scalars). Both ends decode through this module, and decoding validates: a message that
is not exactly what the schema says is a `MessageError` that names the field, never a poisoned model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

Vector = np.ndarray[Any, np.dtype[Any]]
SCHEMA = 1
"""Version of the wire schema; a node with another one is refused."""


class MessageError(ValueError):
    """A message does not follow the schema; the text names the field."""


@dataclass(frozen=True)
class Hosted:
    """A node's answer to ``query``: the clients it hosts.

    Attributes:
        clients: int64 (K,) ids, distinct.
        num_examples: int64 (K,) training examples of each.
    """

    clients: Vector
    num_examples: Vector


@dataclass(frozen=True)
class TrainPlan:
    """What the server asks of one node in one round.

    Attributes:
        params: (d,) global parameters.
        buffers: (m,) global floating-point buffers.
        clients: int64 (K,) ids of the clients to work for, ascending.
        batch_sizes: int64 (K,) ``b_k``.
        round: index of the round, from 0.
        phase: name of the phase, which fixes the client work.
        halves: whether to split batches in halves, for the drift estimate.
        cosine: whether to send the sum of unit updates, for the mean pairwise cosine.
        executor: how to run the clients; "auto" measures and answers what it took.
    """

    params: Tensor
    buffers: Tensor
    clients: Vector
    batch_sizes: Vector
    round: int
    phase: str
    halves: bool
    cosine: bool
    executor: str


@dataclass(frozen=True)
class Contribution:
    """What a node answers: the weighted sum of its clients' updates and one row of scalars for each client.

    Attributes:
        update_sum: (d,) ``sum_k w_k u_k``.
        buffer_sum: (m,) ``sum_k w_k buffers_k``.
        unit_sum: (d,) ``sum_k u_k / |u_k|``, or (0,) when not asked for.
        clients: int64 (K,) ids, ascending.
        weights: float64 (K,) ``w_k > 0``.
        num_examples: int64 (K,) examples processed.
        sq_norms: float64 (K,) ``|u_k|^2``.
        losses: float64 (K,) mean training loss seen by the client.
        half_dots: float64 (K,) inner product of the gradients of the two halves of the batch, or (0,).
        half_sq_diffs: float64 (K,) ``|h_1 - h_2|^2 / (1/b_1 + 1/b_2)``, which estimates tr Sigma, or (0,).
        excluded: int64 (E,) clients left out because their update was not finite.
        executor: what ran the clients.
    """

    update_sum: Tensor
    buffer_sum: Tensor
    unit_sum: Tensor
    clients: Vector
    weights: Vector
    num_examples: Vector
    sq_norms: Vector
    losses: Vector
    half_dots: Vector
    half_sq_diffs: Vector
    excluded: Vector
    executor: str = ""


@dataclass(frozen=True)
class PrivatePlan:
    """What the server asks of one node in one round of a run with differential privacy.

    Attributes:
        params: (d,) global parameters.
        clients: int64 (K,) ids of the clients to work for, ascending.
        round: index of the round, from 0.
        phase: name of the phase, which fixes work, sample rate and noise.
        cohort_size: of the phase, where its controller moves it.
        clip_norm: C of this round.
        executor: as in `TrainPlan`.
    """

    params: Tensor
    clients: Vector
    round: int
    phase: str
    cohort_size: int
    clip_norm: float
    executor: str


@dataclass(frozen=True)
class PrivateContribution:
    """The answer to a `PrivatePlan`. It has no place for norms, losses or realised counts of anybody.

    Attributes:
        update_sum: (d,) sum of clipped contributions, with noise unless the server adds it.
        extra_sums: (e,) further sums of the same release: of squared lengths, of clients within the clip norm.
        clients: int64 (K,) the clients asked for.
        executor: what ran them.
    """

    update_sum: Tensor
    extra_sums: Tensor
    clients: Vector
    executor: str


@dataclass(frozen=True)
class EvaluatePlan:
    """Evaluate the global model on the held-out part of these clients."""

    params: Tensor
    buffers: Tensor
    clients: Vector


@dataclass(frozen=True)
class Evaluation:
    """Sums over each client's held-out examples: int64 (K,) counts, float64 (K,) correct and loss sums."""

    clients: Vector
    counts: Vector
    correct: Vector
    loss_sums: Vector


Schema = TypeVar("Schema", Hosted, TrainPlan, Contribution, PrivatePlan, PrivateContribution, EvaluatePlan, Evaluation)
MessageContent = Hosted | TrainPlan | Contribution | PrivatePlan | PrivateContribution | EvaluatePlan | Evaluation
_INT_COLUMNS = {"clients", "batch_sizes", "num_examples", "excluded", "counts"}
_WIRE_DTYPES = {"float32", "float64", "int64"}
_FINITE_COLUMNS = {"weights", "sq_norms", "losses", "correct", "loss_sums", "half_dots", "half_sq_diffs"}


def encode(message: MessageContent) -> RecordDict:
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
        if isinstance(value, np.ndarray) and field.name != "excluded" and len(value) not in allowed:
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
    if name == "weights" and not (values > 0).all():
        raise MessageError("weights must be positive")
    if name in _INT_COLUMNS | {"sq_norms"} and (values < 0).any():
        raise MessageError(f"{name} must not be negative")
    return values
