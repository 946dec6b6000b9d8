"""Phases and what a controller sees and keeps."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fedbatch.batch.average import Interval
from fedbatch.core.random import Ints


@dataclass(frozen=True)
class Phase:
    """How rounds are run while this phase lasts.

    Attributes:
        name: shown in the record, e.g. "small" or "large".
        cohort_size: clients a round.
        client_batch_size: examples a client and step; None for all that the client has.
        client_work: client work of this phase, or None for the run's own.
        lr: server learning rate of this phase before warm-up and decay, or None for the learning-rate rule.
    """

    name: str
    cohort_size: int
    client_batch_size: int | None = None
    client_work: Any = None
    lr: float | None = None

    def batch_sizes(self, available: Ints) -> Ints:
        """Examples (K,) of a step of clients that have ``available`` (K,)."""
        return available if self.client_batch_size is None else np.minimum(self.client_batch_size, available)

    def __post_init__(self) -> None:
        if self.cohort_size < 1 or (self.client_batch_size is not None and self.client_batch_size < 1):
            raise ValueError(f"phase {self.name!r}: cohort_size and client_batch_size must be at least 1")


@dataclass(frozen=True)
class Observation:
    """What a controller sees after a round.

    Attributes:
        round: index of the round just done, from 0.
        size: global batch of that round, in the unit of the noise scale (examples, or clients after local steps).
        noise_scale: the averaged noise scale, None while there is none.
        unit: "examples" or "clients", what sizes and noise scale are counted in.
        model_bytes: what one client sends or receives in a round.
        trace: this round's estimate of the noise of one unit's gradient, the privacy noise of the round counted in;
            None where nothing was measured.
        grad_sq: this round's estimate of the gradient's squared length, below 0 in a noisy round; None with ``trace``.
        rounds: rounds of the whole run, 0 where nobody knows.
        half: batch at which the optimizer's step makes half of its largest progress, with its interval; None where it
            is not measured, or has no interval yet.
    """

    round: int
    size: float
    noise_scale: Interval | None
    unit: str
    model_bytes: int
    trace: float | None = None
    grad_sq: float | None = None
    rounds: int = 0
    half: Interval | None = None


@dataclass(frozen=True)
class ControlState:
    """What a controller keeps between rounds: plain values that go into checkpoints.

    Attributes:
        phase: name of the current phase.
        cohort_size: clients a round, when the controller moves it freely; else None and the phase's own holds.
        since_round: first round of the current phase.
        lr_noise_scale: noise scale held for the learning-rate rule since the last change; None before any.
        reason: why the last change was made, for people.
        memory: numbers that the controller keeps of earlier rounds, in an order of its own.
        lr_factor: factor on the learning rate that the controller asks for, > 0; None leaves it to the rule.
        share: share of the run that is done by the controller's own clock, which the learning rate's decay follows; at
            1 the run ends. None counts rounds.
    """

    phase: str
    cohort_size: int | None = None
    since_round: int = 0
    lr_noise_scale: float | None = None
    reason: str = ""
    memory: tuple[float, ...] = ()
    lr_factor: float | None = None
    share: float | None = None

    def is_change_of(self, before: "ControlState") -> bool:
        """Whether rounds are run otherwise from here on than under ``before``, or for another reason."""
        now, then = (
            (state.phase, state.cohort_size, state.since_round, state.lr_noise_scale, state.reason)
            for state in (self, before)
        )
        return now != then


def phase_of(phases: Iterable[Phase], state: ControlState) -> Phase:
    """The phase that a controller's state stands for, with the cohort that it has been moved to."""
    phase = next(phase for phase in phases if phase.name == state.phase)
    return phase if state.cohort_size is None else replace(phase, cohort_size=state.cohort_size)


def relative_batch(phase: Phase, base: Phase) -> float:
    """The global batch of a phase over that of another.

    Raises:
        ValueError: only one of them has a client batch of a given size.
    """
    sizes = phase.client_batch_size, base.client_batch_size
    if (sizes[0] is None) != (sizes[1] is None):
        raise ValueError(f"controller: give {phase.name} and {base.name} both a client_batch_size, or neither")
    return phase.cohort_size * (sizes[0] or 1) / (base.cohort_size * (sizes[1] or 1))


class Controller(Protocol):
    """Decides the phase of the next round. Pure: state in, state out.

    ``adaptive`` says whether it looks at more than the number of the round, which decides how privacy is accounted.
    """

    phases: tuple[Phase, ...]
    adaptive: bool

    def start(self) -> ControlState:
        """The state before round 0."""
        ...

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """The state for round ``seen.round + 1``; the same state when nothing changes."""
        ...
