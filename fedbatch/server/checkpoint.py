"""Checkpoints of the server's state.

A checkpoint is one file: 64 hexadecimal digits of SHA-256, a newline, and what they are of: a line of JSON that says
which run it is of, and what ``torch.save`` wrote. It is written beside its final name and moved there, so that a crash
leaves either the old or the new file, never half of one. Loading never unpickles code (``weights_only``).
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbatch.core.errors import ConfigError
from fedbatch.server.state import ServerState

KEEP = 2
VERSION = 2
"""Of the format; 1 had no line of JSON."""


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
    parts = json.dumps(told).encode() + b"\n", state.to_bytes()
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    path = folder / f"round-{state.round:08d}.ckpt"
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.writelines((checksum.hexdigest().encode() + b"\n", *parts))
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


def rounds(folder: Path) -> list[int]:
    """Rounds done in the checkpoints that are there, ascending."""
    return sorted(int(path.stem.removeprefix("round-")) for path in folder.glob("round-*.ckpt"))


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
