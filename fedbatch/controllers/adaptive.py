"""A cohort that follows the noise scale."""

import math
from dataclasses import dataclass, replace

from fedbatch.controllers.phase import ControlState, Observation, Phase


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
