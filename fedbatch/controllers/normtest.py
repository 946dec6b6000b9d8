"""A cohort that grows until the noise of the mean update is small beside the update itself."""

import math
from dataclasses import dataclass, replace

from fedbatch.controllers.phase import ControlState, Observation, Phase


@dataclass(frozen=True)
class NormTest:
    """The norm test: the noise of the mean, squared, is at most ``eta^2`` times the gradient's squared length.

    With noise scale N that is a batch of at least ``N / eta^2``. Where it fails the cohort grows to that batch, and it
    never shrinks. After local steps N and the batch are counted in clients. It goes by the average of N as it is,
    without asking how sure that is; see `NoiseScaleLadder` for the same question with a confidence bound.

    Attributes:
        phase: client batch and work; its cohort size is where the run starts.
        eta: noise that is tolerated, relative to the gradient, > 0; larger means smaller batches.
        max_cohort_size: upper clamp.
        every_rounds: rounds between tests, >= 1.

    Sources: Byrd et al. 2012; Lau et al. 2024 (arXiv 2402.11215, 2412.21124; for local SGD 2406.13936).
    """

    phase: Phase
    eta: float
    max_cohort_size: int
    every_rounds: int = 10

    adaptive = True

    def __post_init__(self) -> None:
        if not self.eta > 0 or self.every_rounds < 1:
            raise ValueError("controller: eta must be > 0 and every_rounds at least 1")
        if self.max_cohort_size < self.phase.cohort_size:
            raise ValueError(
                f"controller.max_cohort_size ({self.max_cohort_size}) is smaller than the cohort at the start "
                f"({self.phase.cohort_size}); raise it"
            )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The first and the largest cohort, so that both are checked before the run."""
        return self.phase, replace(self.phase, cohort_size=self.max_cohort_size)

    def start(self) -> ControlState:
        """The configured cohort."""
        return ControlState(self.phase.name, self.phase.cohort_size)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """A larger cohort when the test fails."""
        cohort, noise = state.cohort_size or self.phase.cohort_size, seen.noise_scale
        if noise is None or not seen.size or (seen.round + 1) % self.every_rounds:
            return state
        wanted_size = noise.value / self.eta**2
        wanted = min(wanted_size * cohort / seen.size, float(self.max_cohort_size))
        if math.ceil(wanted) <= cohort:
            return state
        held = noise.value if math.isfinite(noise.value) else state.lr_noise_scale
        reason = f"noise scale {noise.value:.3g} / {self.eta:g}^2 = {wanted_size:.3g} is above batch {seen.size:g}"
        return ControlState(state.phase, math.ceil(wanted), seen.round + 1, held, reason)
