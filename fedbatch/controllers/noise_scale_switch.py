"""Small batches until the noise scale asks for large ones."""

import math
from dataclasses import dataclass

from fedbatch.controllers.phase import ControlState, Observation, Phase


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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
