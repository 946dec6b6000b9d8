"""The server's state between rounds, and checkpoints of it.

A checkpoint is one file: 64 hexadecimal digits of SHA-256, a newline, and what they are of: a line of JSON that says
which run it is of, and what ``torch.save`` wrote. It is written beside its final name and moved there, so that a crash
leaves either the old or the new file, never half of one. Loading never unpickles code (``weights_only``).
"""

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

import torch
from torch import Tensor

from fedbatch.active.labels import Labels
from fedbatch.batch.tracker import Tracker
from fedbatch.controllers.phase import ControlState
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.ledger import Ledger, Release

KEEP = 2
VERSION = 2
"""Of the format; 1 had no line of JSON."""


@dataclass(frozen=True)
class Totals:
    """What a run has cost so far.

    Attributes:
        examples: examples processed by clients.
        bytes_up: bytes sent by clients, one model-sized update each.
        bytes_down: bytes sent to clients, one model each.
        simulated_seconds: by the run's time model.
        measured_seconds: wall-clock on this machine, without evaluation.
    """

    examples: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    simulated_seconds: float = 0.0
    measured_seconds: float = 0.0


@dataclass(frozen=True)
class ServerState:
    """Everything that survives a round. Parameter and optimizer tensors are stepped in place, all else is replaced.

    Attributes:
        round: rounds done, and index of the next one.
        params: (d,) global parameters.
        buffers: (m,) global buffers.
        optimizer: state dict of the server optimizer.
        control: state of the phase controller.
        noise: averages of the noise scale.
        within: averages of the sampling noise within clients, when halves are measured.
        between: averages of the drift between clients, when halves are measured.
        lr_factor: learning-rate factor of the batch rule in the last round.
        lr_factor_before: the same in the last round of the previous phase.
        totals: what the run has cost.
        executors: what runs the clients of each phase, once ``executor=auto`` has measured.
        ledger: what has been released under privacy.
        clip_norm: clip norm of the next round, 0 without privacy.
        labels: what is known of labels in a run that queries for them.
        switches: phase changes so far, as ``{"round", "from", "to", "reason"}``.
        answered: nodes that have answered, which ``faults.stale`` needs to know.
    """

    round: int
    params: Tensor
    buffers: Tensor
    optimizer: dict[str, Any]
    control: ControlState
    noise: Tracker
    within: Tracker
    between: Tracker
    lr_factor: float = 1.0
    lr_factor_before: float = 1.0
    totals: Totals = field(default_factory=Totals)
    executors: dict[str, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    clip_norm: float = 0.0
    labels: Labels = field(default_factory=Labels)
    switches: tuple[dict[str, Any], ...] = ()
    answered: tuple[int, ...] = ()

    def to_bytes(self) -> bytes:
        """The state as `from_bytes` reads it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("control", "noise", "within", "between", "totals"):
            values[name] = asdict(values[name])
        buffer = io.BytesIO()
        values["labels"] = vars(self.labels)
        values["ledger"] = {"accounts": self.ledger.accounts, "releases": [vars(r) for r in self.ledger.releases]}
        values |= {"switches": list(self.switches), "answered": list(self.answered)}
        torch.save(values, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "ServerState":
        """The state that `to_bytes` wrote, now or in an earlier version: what was not there yet has its default.

        Raises:
            ConfigError: something is missing, or nobody knows what it is.
        """
        values = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        _check(cls, values)
        for name, kind in {"noise": Tracker, "within": Tracker, "between": Tracker, **PARTS}.items():
            if name in values:
                values[name] = kind(**_check(kind, values[name], name))
        if "ledger" in values:
            ledger = values["ledger"]
            releases = (Release(**_check(Release, release, "ledger")) for release in ledger["releases"])
            values["ledger"] = Ledger.of(ledger["accounts"], releases)
        return cls(**values | {name: tuple(values.get(name, ())) for name in ("switches", "answered")})


PARTS: dict[str, Any] = {"control": ControlState, "totals": Totals, "labels": Labels}

PLAIN: dict[Any, Any] = {int: int, float: int | float, str: str, Tensor: Tensor, dict: dict, tuple: list | tuple}
"""What a checkpoint has for a field of this type."""


def _check(kind: type[Any], values: Any, name: str = "state") -> Mapping[str, Any]:
    """The values, if a ``kind`` can be made of them."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"its {name} is {type(values).__name__} and not a mapping")
    known = fields(kind)
    needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if lost := sorted(needed - set(values)):
        raise ConfigError(f"its {name} lacks {', '.join(lost)}")
    if unknown := sorted(set(map(str, values)) - {f.name for f in known}):
        raise ConfigError(f"its {name} has {', '.join(unknown)}, which this fedbatch does not know; update fedbatch")
    for f in known:
        plain = PLAIN.get(get_origin(f.type) or f.type, object)
        if f.name in values and not isinstance(values[f.name], plain):
            raise ConfigError(f"{f.name} in its {name} is {type(values[f.name]).__name__}")
    return values


def params_sha256(params: Tensor) -> str:
    """Hash of the parameters (d,), to compare runs bit for bit."""
    return hashlib.sha256(params.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def save(state: ServerState, folder: Path, header: Mapping[str, Any] | None = None, durable: bool = True) -> Path:
    """Write a checkpoint to ``folder`` and keep the last two of this run.

    Args:
        state: what is to be loaded again.
        folder: of checkpoints, made if needed.
        header: plain values that say which run it is of, ``run`` its id.
        durable: wait until it is on disk, so that it outlives a power failure too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {"version": VERSION, **(header or {})}
    content = json.dumps(told).encode() + b"\n" + state.to_bytes()
    path = folder / f"round-{state.round:08d}.ckpt"
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    partial.replace(path)
    for left in folder.glob("round-*.partial"):  # by a kill
        left.unlink()
    own = [old for old in sorted(folder.glob("round-*.ckpt")) if read_header(old).get("run") == told.get("run")]
    for old in [old for old in own if old <= path][:-KEEP]:  # later ones are damaged, or it would have begun there
        old.unlink()
    return path


def read_header(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its run, unchecked; empty in one of version 1."""
    with open(path, "rb") as file:
        file.readline(100)
        return _header(file.readline(1 << 16))


def _header(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def load_latest(folder: Path, run: str | None = None) -> ServerState:
    """The newest checkpoint whose checksum holds; see `load`."""
    return load(folder, run)[0]


def load(folder: Path, run: str | None = None) -> tuple[ServerState, dict[str, Any]]:
    """The newest checkpoint whose checksum holds, and its header; a broken one is skipped with a warning.

    Args:
        folder: of checkpoints.
        run: id of the run whose checkpoints count; None takes any.

    Raises:
        FileNotFoundError: no valid checkpoint.
        ConfigError: it is of another version of fedbatch.
    """
    for path, content in _sound(folder):
        line, _, state = content.partition(b"\n")
        header = _header(line)
        if run is not None and header.get("run") != run:
            continue
        try:
            if header.get("version", 1) > VERSION:
                raise ConfigError(f"it was written by a newer fedbatch (format {header['version']}); update fedbatch")
            return ServerState.from_bytes(state if header else content), header
        except ConfigError as error:
            raise ConfigError(f"checkpoint {path} cannot be read: {error}") from error
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, EOFError) as error:
            raise ConfigError(f"checkpoint {path} cannot be read: it is not what fedbatch writes") from error
    raise FileNotFoundError(f"no valid checkpoint {'of this run ' if run else ''}in {folder}; start the run anew")


def _sound(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Checkpoints whose checksum holds, the newest first, and what it is of."""
    for path in sorted(folder.glob("round-*.ckpt"), reverse=True):
        digest, _, content = path.read_bytes().partition(b"\n") if path.is_file() else (b"", b"", b"-")
        if hashlib.sha256(content).hexdigest().encode() == digest:
            yield path, content
        else:
            warnings.warn(f"checkpoint {path.name} is damaged; trying the one before", stacklevel=4)
