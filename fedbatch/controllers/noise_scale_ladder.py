"""Batches that double, rung by rung, while a test says that noise takes most of a step."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from fedbatch.controllers.phase import ControlState, Observation, Phase

WINDOWS = (12, 25, 50)
"""Last rounds of a rung over which it is tested, in every round: short ones see a clear case soon."""
Z = 2.0
"""One-sided threshold in standard errors."""


@dataclass(frozen=True)
class NoiseScaleLadder:
    """Small batches first; twice as large once noise surely takes more than ``up`` times the gradient (our design).

    Each round of batch B gives estimates of the noise's trace and of the gradient's squared length, and so one value of
    ``D = trace - up * B * |G|^2``, which is above 0 where the noise scale is above ``up * B``. The mean of D over the
    last rounds of the rung is tested against 0, with its standard error from their own spread. Differences need no
    division, so that rounds whose gradient is lost in noise count too. It is a norm test (Byrd et al. 2012) that asks
    to be sure. It looks often, and |G|^2 may have spikes that a short window misses, so the average of the noise scale
    must be on the same side. Where the noise scale is as large as the batch it climbs sooner or later.

    Rungs double the cohort, and where that is as large as it may be, the client batch, from ``small`` to ``large``.

    Attributes:
        small: where the run starts.
        large: the last rung. Give ``lr`` to both phases, so that rungs between have one too, or to neither.
        up: a rung up when the mean of D is above 0; at 1, noise takes half of a step's progress.
        down: a rung down when ``down * B * |G|^2 - trace`` is above 0.
        settle_rounds: rounds at the start of each rung that are passed over.
    """

    small: Phase
    large: Phase
    up: float = 1.0
    down: float = 0.05
    settle_rounds: int = 0
    rungs: tuple[Phase, ...] = field(init=False, repr=False)

    adaptive = True

    def __post_init__(self) -> None:
        if not 0 <= self.down < self.up:
            raise ValueError(f"controller: need 0 <= down < up (got down {self.down}, up {self.up})")
        if self.settle_rounds < 0:
            raise ValueError(f"controller: settle_rounds must not be negative (got {self.settle_rounds})")
        if (self.small.lr is None) != (self.large.lr is None):
            raise ValueError(
                "controller: give lr to both small and large, or to neither, so that rungs between have one; or use "
                "controller=two_phase_switch, which has none"
            )
        rungs = (self.small, *between(self.small, self.large), self.large)
        if len({phase.name for phase in rungs}) < len(rungs):
            raise ValueError(f"controller: phases need different names (got {[phase.name for phase in rungs]})")
        object.__setattr__(self, "rungs", rungs)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The two ends, which are what people set and are checked first, and the rungs between."""
        return self.small, self.large, *self.rungs[1:-1]

    def start(self) -> ControlState:
        """Start small: early in training the noise scale is low."""
        return ControlState(self.small.name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """A rung up or down when the test is sure, or one more round in memory."""
        if seen.noise_scale is None or seen.trace is None or seen.grad_sq is None or not seen.size:
            return state
        if seen.round < state.since_round + self.settle_rounds:
            return state
        memory = (*state.memory, seen.trace, seen.grad_sq, seen.size)[-3 * WINDOWS[-1] :]
        rung = [phase.name for phase in self.rungs].index(state.phase)
        may_rise = rung + 1 < len(self.rungs) and seen.noise_scale.value > self.up * seen.size
        may_fall = rung > 0 and seen.noise_scale.value < self.down * seen.size
        if not (may_rise or may_fall) or len(memory) < 3 * WINDOWS[0]:
            return replace(state, memory=memory)
        rounds = np.array(memory).reshape(-1, 3)
        for last in (rounds[-window:] for window in WINDOWS if len(rounds) >= window):
            trace, grad_sq, size = last.T
            if may_rise and is_above_zero(trace - self.up * size * grad_sq):
                return self._moved(state, seen, last, rung + 1, ">", self.up)
            if may_fall and is_above_zero(self.down * size * grad_sq - trace):
                return self._moved(state, seen, last, rung - 1, "<", self.down)
        return replace(state, memory=memory)

    def _moved(
        self, state: ControlState, seen: Observation, rounds: np.ndarray, rung: int, sign: str, factor: float
    ) -> ControlState:
        trace, grad_sq, size = (float(mean) for mean in rounds.mean(axis=0))
        noise = trace / grad_sq if grad_sq > 0 else math.inf
        average = seen.noise_scale.value if seen.noise_scale else math.inf
        held = next((value for value in (average, noise) if math.isfinite(value)), state.lr_noise_scale)
        reason = f"noise scale {noise:.3g} over {len(rounds)} rounds, surely {sign} {factor:g} x batch {size:g}"
        return ControlState(self.rungs[rung].name, None, seen.round + 1, held, reason)


def between(small: Phase, large: Phase) -> tuple[Phase, ...]:
    """The rungs between two phases: twice the cohort each, then twice the client batch; none where a size shrinks.

    >>> [(p.name, p.cohort_size, p.client_batch_size) for p in between(Phase("a", 16, 4), Phase("b", 64, 8))]
    [('x2', 32, 4), ('x4', 64, 4)]
    """
    cohort, batch, rungs = small.cohort_size, small.client_batch_size, list[Phase]()
    end = large.client_batch_size
    if large.cohort_size < cohort or (end or math.inf) < (batch or math.inf):
        return ()
    while True:
        if 2 * cohort <= large.cohort_size:
            cohort *= 2
        elif batch and end and 2 * batch <= end:
            batch *= 2
        else:
            break
        rungs.append(replace(small, name=f"x{2 ** (len(rungs) + 1)}", cohort_size=cohort, client_batch_size=batch))
    # The last one leads to ``large`` by a factor of its own; one that is hardly smaller is left out.
    is_comparable = (batch is None) == (end is None)
    if rungs and is_comparable and large.cohort_size * (end or 1) < math.sqrt(2) * cohort * (batch or 1):
        rungs.pop()
    return tuple(_with_rate(rung, small, large, (i + 1) / (len(rungs) + 1)) for i, rung in enumerate(rungs))


def _with_rate(rung: Phase, small: Phase, large: Phase, share: float) -> Phase:
    """The rung with a rate between those of the ends, in equal ratios."""
    if small.lr is None or large.lr is None:
        return rung
    return replace(rung, lr=small.lr ** (1 - share) * large.lr**share)


def is_above_zero(values: np.ndarray) -> bool:
    """Whether the mean of ``values`` (n,), n >= 2, is more than `Z` of its standard errors above 0."""
    n, total = len(values), float(values.sum())
    squares = max(float(values @ values) - total**2 / n, 0.0)  # once a round and window, so without np.std
    return total / n > Z * math.sqrt(squares / (n - 1) / n)
