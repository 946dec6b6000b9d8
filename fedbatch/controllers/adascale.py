"""A learning rate for a large batch by what the batch gains, and a clock that counts gains."""

import math
from dataclasses import dataclass, replace

from fedbatch.controllers.phase import ControlState, Observation, Phase


@dataclass(frozen=True)
class AdaScale:
    """AdaScale: the rate of a small batch times the gain of a batch that is ``scale`` times as large.

    The gain ``r = (1 + N / B_0) / (1 + N / B)``, N the noise scale and ``B_0 = B / scale``, is in [1, scale]: the
    number of small steps that one step is worth. The clock adds it up. ``rounds`` and the learning rate's decay count
    steps of the small batch, so that the run ends after fewer rounds, when the clock has come to ``rounds``.

    Attributes:
        phase: the large batch, of all rounds.
        scale: S >= 1, over the batch for which ``server_optimizer.lr`` and ``rounds`` were chosen.

    Source: Johnson et al. 2020, algorithm 1; with the average of the noise scale in the place of its own.
    """

    phase: Phase
    scale: float

    adaptive = True

    def __post_init__(self) -> None:
        if not 1 <= self.scale < math.inf:
            raise ValueError(f"controller.scale must be at least 1 (got {self.scale})")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The one phase."""
        return (self.phase,)

    def start(self) -> ControlState:
        """A gain of 1 until the noise scale is known."""
        return ControlState(self.phase.name, memory=(0.0,), lr_factor=1.0, share=0.0)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """The clock after this round, and the gain for the next."""
        steps = state.memory[0] + (state.lr_factor or 1.0)
        share = steps / seen.rounds if seen.rounds else None
        return replace(state, memory=(steps,), lr_factor=self._gain(seen) or state.lr_factor, share=share)

    def _gain(self, seen: Observation) -> float | None:
        """The gain by the noise scale seen; None while there is none."""
        if seen.noise_scale is None or not seen.size:
            return None
        relative = seen.noise_scale.value / seen.size
        if math.isinf(relative):
            return self.scale
        return (1 + self.scale * max(relative, 0.0)) / (1 + max(relative, 0.0))
