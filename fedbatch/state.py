"""The server's state between rounds, and checkpoints of it.

A checkpoint is one file: 64 hexadecimal digits of SHA-256, a newline, then what ``torch.save`` wrote. It is written
beside its final name and moved there, so that a crash leaves either the old or the new file, never half of one.
Loading never unpickles code (``weights_only``).
"""

import hashlib
import io
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedbatch.active.labels import Labels
from fedbatch.batch.phases import ControlState
from fedbatch.batch.tracker import Tracker
from fedbatch.privacy.ledger import Ledger, Release

KEEP = 2


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

    def to_bytes(self) -> bytes:
        """The state as `from_bytes` reads it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("control", "noise", "within", "between", "totals"):
            values[name] = asdict(values[name])
        buffer = io.BytesIO()
        values["labels"] = vars(self.labels)
        values["ledger"] = {"accounts": self.ledger.accounts, "releases": [vars(r) for r in self.ledger.releases]}
        torch.save(values | {"switches": list(self.switches)}, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "ServerState":
        """The state that `to_bytes` wrote."""
        values = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        for name in ("noise", "within", "between"):
            values[name] = Tracker(**values[name])
        values["control"], values["totals"] = ControlState(**values["control"]), Totals(**values["totals"])
        values["labels"] = Labels(**values.get("labels", {}))
        ledger = values["ledger"]
        values["ledger"] = Ledger.of(ledger["accounts"], (Release(**r) for r in ledger["releases"]))
        return cls(**values | {"switches": tuple(values["switches"])})


def params_sha256(params: Tensor) -> str:
    """Hash of the parameters (d,), to compare runs bit for bit."""
    return hashlib.sha256(params.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def save(state: ServerState, folder: Path) -> Path:
    """Write a checkpoint to ``folder`` and keep the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    content = state.to_bytes()
    path = folder / f"round-{state.round:08d}.ckpt"
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in sorted(folder.glob("round-*.ckpt"))[:-KEEP]:
        old.unlink()
    return path


def load_latest(folder: Path) -> ServerState:
    """The newest checkpoint whose checksum holds; a broken one is skipped with a warning.

    Raises:
        FileNotFoundError: no valid checkpoint.
    """
    for path in sorted(folder.glob("round-*.ckpt"), reverse=True):
        digest, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() == digest:
            return ServerState.from_bytes(content)
        warnings.warn(f"checkpoint {path.name} is damaged; trying the one before", stacklevel=2)
    raise FileNotFoundError(f"no valid checkpoint in {folder}; start the run anew")
