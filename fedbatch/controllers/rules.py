"""Phase controllers: fixed, schedule, small/large switching by noise scale, and adaptive batch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedbatch.controllers.phase import ControlState, Observation, Phase


@dataclass(frozen=True)
class Fixed:
    """One phase for the whole run."""

    phase: Phase

    adaptive = False

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The one phase."""
        return (self.phase,)

    def start(self) -> ControlState:
        """The state before round 0."""
        return ControlState(self.phase.name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """Nothing ever changes."""
        return state


class Schedule:
    """Phases that begin at fixed rounds.

    Args:
        phases: the phases by any key.
        starts: first round of each, by the same keys; one must be 0.
    """

    adaptive = False

    def __init__(self, phases: Mapping[str, Phase], starts: Mapping[str, int]):
        if set(phases) != set(starts) or 0 not in starts.values() or len(set(starts.values())) < len(starts):
            raise ValueError(
                f"controller.starts: give each phase its own first round, one of them 0 (got {dict(starts)})"
            )
        self._starts = {starts[key]: phases[key] for key in sorted(starts, key=lambda key: starts[key])}
        self.phases = tuple(self._starts.values())

    def start(self) -> ControlState:
        """The state before round 0."""
        return ControlState(self._starts[0].name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """The phase that starts at the next round, if one does."""
        phase = self._starts.get(seen.round + 1)
        if phase is None or phase.name == state.phase:
            return state
        value = seen.noise_scale.value if seen.noise_scale else None
        return ControlState(phase.name, None, seen.round + 1, value, f"scheduled for round {seen.round + 1}")


def doubling(
    *, cohort_size: int, client_batch_size: int | None, every_rounds: int, times: int, double: str
) -> Schedule:
    """A schedule that doubles the cohort or the client batch every so many rounds (Charles et al. 2021; Smith 2017).

    Args:
        cohort_size: clients a round at the start.
        client_batch_size: examples a client at the start; None for all, which cannot be doubled.
        every_rounds: rounds between doublings, >= 1.
        times: number of doublings.
        double: "cohort" or "batch".
    """
    if double not in ("cohort", "batch") or every_rounds < 1 or (double == "batch" and not client_batch_size):
        raise ValueError("controller: double must be cohort or batch (of a given size), every_rounds at least 1")
    if times < 0:
        raise ValueError(f"controller: times must not be negative (got {times})")
    factors = [(2**i, 1) if double == "cohort" else (1, 2**i) for i in range(times + 1)]
    sizes = [(cohort_size * c, client_batch_size and client_batch_size * b) for c, b in factors]
    phases = {f"x{2**i}": Phase(f"x{2**i}", c, b) for i, (c, b) in enumerate(sizes)}
    return Schedule(phases, {name: i * every_rounds for i, name in enumerate(phases)})


@dataclass(frozen=True)
class NoiseScaleSwitch:
    """Small batches while they are cheap, large ones once noise dominates, and back (our design).

    The noise of the mean gradient, relative to its length squared, is noise scale / batch. Far above 1, rounds are
    wasted on noise and the large batch pays; far below 1, examples are wasted. Comparing the bound of a confidence
    interval and not the value means that the switch holds while the estimate is too wide to tell.

    Attributes:
        small: phase for a noise scale below the batch.
        large: phase for a noise scale above the batch.
        up: go large when the lower bound of the noise scale is above ``up`` times the current batch; at 1, noise takes
            half of a small step's progress.
        down: go small when the upper bound is below ``down`` times the current batch.
        settle_rounds: rounds after a change during which nothing is decided, because the average still remembers the
            old phase and learning rate.
    """

    small: Phase
    large: Phase
    up: float = 1.0
    down: float = 0.05
    settle_rounds: int = 50

    adaptive = True

    def __post_init__(self) -> None:
        if self.small.name == self.large.name:
            raise ValueError(f"controller: the phases need different names (both are {self.small.name!r})")
        if not 0 <= self.down < self.up:
            raise ValueError(f"controller: need 0 <= down < up (got down {self.down}, up {self.up})")
        if self.settle_rounds < 0:
            raise ValueError(f"controller: settle_rounds must not be negative (got {self.settle_rounds})")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Small and large."""
        return self.small, self.large

    def start(self) -> ControlState:
        """Start small: early in training the noise scale is low."""
        return ControlState(self.small.name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """Switch when the interval is clear of the threshold and the phase has settled."""
        if seen.noise_scale is None or seen.round + 1 - state.since_round < self.settle_rounds:
            return state
        noise, small = seen.noise_scale, state.phase == self.small.name
        if small and noise.low > self.up * seen.size:
            target, sign, factor = self.large.name, ">", self.up
        elif not small and noise.high < self.down * seen.size:
            target, sign, factor = self.small.name, "<", self.down
        else:
            return state
        reason = (
            f"noise scale {noise.value:.3g} [{noise.low:.3g}, {noise.high:.3g}] {sign} {factor:g} x batch {seen.size:g}"
        )
        return ControlState(target, None, seen.round + 1, _finite(noise.value), reason)


@dataclass(frozen=True)
class Adaptive:
    """Cohort that follows B = sqrt(r * noise scale) (McCandlish et al. 2018, app. D).

    Attributes:
        phase: client batch and work; its cohort size is where the run starts.
        exchange_rate: r, examples that one more step is worth; E_min/S_min balances both.
        min_cohort_size: lower clamp.
        max_cohort_size: upper clamp.
        step: smallest relative change worth making, > 1; the cohort moves only by at least this factor.
        settle_rounds: rounds between changes.
    """

    phase: Phase
    exchange_rate: float
    min_cohort_size: int
    max_cohort_size: int
    step: float = 1.5
    settle_rounds: int = 50

    adaptive = True

    def __post_init__(self) -> None:
        if self.exchange_rate <= 0 or self.step <= 1:
            raise ValueError("controller: exchange_rate must be > 0 and step > 1")
        if not 2 <= self.min_cohort_size <= self.max_cohort_size:
            raise ValueError("controller: need 2 <= min_cohort_size <= max_cohort_size")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The smallest and the largest cohort it may choose, so that both are checked before the run."""
        return tuple(replace(self.phase, cohort_size=c) for c in (self.min_cohort_size, self.max_cohort_size))

    def start(self) -> ControlState:
        """The configured cohort."""
        return ControlState(self.phase.name, self.phase.cohort_size)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """Move the cohort when the wanted batch is away by more than ``step`` and the noise scale is identified."""
        noise, cohort = seen.noise_scale, state.cohort_size or self.phase.cohort_size
        if noise is None or math.isinf(noise.high) or seen.round + 1 - state.since_round < self.settle_rounds:
            return state
        wanted_size = math.sqrt(self.exchange_rate * noise.value)
        wanted = round(wanted_size * cohort / seen.size)
        wanted = min(max(wanted, self.min_cohort_size), self.max_cohort_size)
        if 1 / self.step < wanted / cohort < self.step:
            return state
        reason = (
            f"noise scale {noise.value:.3g}: batch sqrt({self.exchange_rate:g} x {noise.value:.3g}) = {wanted_size:.3g}"
        )
        return ControlState(state.phase, wanted, seen.round + 1, noise.value, reason)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
