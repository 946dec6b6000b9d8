"""The server's state between rounds: one value, replaced after each round."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, get_origin

import torch
from torch import Tensor

from fedbatch.active.labels import Labels
from fedbatch.asynchronous.under_way import UnderWay
from fedbatch.batch.average import Averages, RunningNoiseScale
from fedbatch.batch.gain import RunningGain
from fedbatch.controllers.phase import ControlState
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.ledger import Ledger, LedgerEntry
from fedbatch.privacy.noise_history import UNCORRELATED, NoiseHistory
from fedbatch.server.best import Best


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
        averages: of the noise scale and of its parts.
        lr_factor: learning-rate factor of the batch rule in the last round.
        lr_factor_before: the same in the last round of the previous phase.
        totals: what the run has cost.
        executors: what runs the clients of each phase, once ``executor=auto`` has measured.
        ledger: what has been released under privacy.
        clip_norm: clip norm of the next round, 0 without privacy.
        labels: what is known of labels in a run that queries for them.
        switches: phase changes so far, as ``{"round", "from", "to", "reason"}``.
        answered: nodes that have answered, which ``faults.stale`` needs to know.
        norms: average length of the longest update of nodes, by phase and first client; see `aggregation.bounded`.
        average: ``params`` and ``buffers`` averaged over rounds; empty without ``averaging``.
        shared: the server's own vectors for the client work, by name.
        versions: int64 (P,) of each client, one more than the last round of which its contribution was taken, 0 if
            there is none; (0,) where clients keep nothing.
        losses: float64 (P,) training loss of each client when it last took part, NaN for who never has; (0,) where the
            sampler does not ask for it.
        under_way: clients at work on this or earlier models, where rounds are asynchronous; else nobody.
        noise_history: what the next round's noise is correlated with, under privacy; no released value.
        best: the best value of ``target_metric`` so far.
    """

    round: int
    params: Tensor
    buffers: Tensor
    optimizer: dict[str, Any]
    control: ControlState
    averages: Averages
    lr_factor: float = 1.0
    lr_factor_before: float = 1.0
    totals: Totals = field(default_factory=Totals)
    executors: dict[str, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    clip_norm: float = 0.0
    labels: Labels = field(default_factory=Labels)
    switches: tuple[dict[str, Any], ...] = ()
    answered: tuple[int, ...] = ()
    norms: dict[str, float] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    noise_history: NoiseHistory = UNCORRELATED
    best: Best = field(default_factory=Best)
    shared: dict[str, Tensor] = field(default_factory=dict)
    versions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    losses: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    under_way: UnderWay = field(default_factory=UnderWay)

    def executor(self, phase: str, asked: str) -> str:
        """What runs the clients of a phase: what was ``asked`` for, or what "auto" has found before."""
        return self.executors.get(phase, "auto") if asked == "auto" else asked

    def to_bytes(self) -> bytes:
        """The state as `from_bytes` reads it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("control", "averages", "totals", "best"):
            values[name] = asdict(values[name])
        buffer = io.BytesIO()
        for name in ("labels", "noise_history", "under_way"):
            values[name] = vars(values[name])
        values["ledger"] = {"accounts": self.ledger.accounts, "releases": [vars(r) for r in self.ledger.releases]}
        values |= {"switches": list(self.switches), "answered": list(self.answered)}
        torch.save(values, buffer)
        return buffer.getvalue()

    def summary(self) -> dict[str, Any]:
        """What the summary of the run says of it."""
        return {
            "rounds": self.round,
            **asdict(self.totals),
            "phase_switches": list(self.switches),
            "executors": self.executors,
            "params_sha256": params_sha256(self.params),
            "parameters": self.params.numel(),
        }

    @classmethod
    def from_bytes(cls, content: bytes) -> "ServerState":
        """The state that `to_bytes` wrote, now or in an earlier version: what was not there yet has its default.

        Raises:
            ConfigError: something is missing, or nobody knows what it is.
        """
        values = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if isinstance(values, dict) and values.keys() >= AVERAGES:  # as they stood in checkpoints of 0.1
            values["averages"] = {name: values.pop(name) for name in AVERAGES}
        _check(cls, values)
        for name, kind in PARTS.items():
            if name in values:
                values[name] = kind(**_check(kind, values[name], name))
        averages = {name: getattr(values["averages"], name) for name in AVERAGES}
        gain = values["averages"].gain
        gain = gain if isinstance(gain, RunningGain) else RunningGain(**_check(RunningGain, gain, "gain"))
        values["averages"] = Averages(**{name: _running(name, each) for name, each in averages.items()}, gain=gain)
        if "ledger" in values:
            ledger = values["ledger"]
            releases = (LedgerEntry(**_check(LedgerEntry, release, "ledger")) for release in ledger["releases"])
            values["ledger"] = Ledger.of(ledger["accounts"], releases)
        return cls(**values | {name: tuple(values.get(name, ())) for name in ("switches", "answered")})


PARTS: dict[str, Any] = {
    "control": ControlState,
    "totals": Totals,
    "labels": Labels,
    "averages": Averages,
    "noise_history": NoiseHistory,
    "under_way": UnderWay,
    "best": Best,
}
AVERAGES = {"noise", "within", "between"}

PLAIN: dict[Any, Any] = {int: int, float: int | float, str: str, Tensor: Tensor, dict: dict, tuple: list | tuple}
"""What a checkpoint has for a field of this type."""


def _running(name: str, values: Any) -> RunningNoiseScale:
    return RunningNoiseScale(**_check(RunningNoiseScale, values, name))


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
