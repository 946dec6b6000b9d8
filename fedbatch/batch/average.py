"""Averages of the noise scale over rounds: numerator and denominator apart, divided last."""

import math
from dataclasses import dataclass, field, replace

from fedbatch.batch.drift import Drift
from fedbatch.batch.gain import GroupSums, RunningGain, fit
from fedbatch.batch.noise_scale import NoiseScale


@dataclass(frozen=True)
class Interval:
    """An averaged noise scale with a confidence interval, in the unit of the batch sizes.

    Attributes:
        value: the estimate; infinite when the gradient is not distinguishable from zero.
        low: lower bound, >= 0.
        high: upper bound, infinite when the gradient is not distinguishable from zero.
        effective_rounds: number of equally weighted rounds with the same precision.
    """

    value: float
    low: float
    high: float
    effective_rounds: float


@dataclass(frozen=True)
class RunningNoiseScale:
    """Exponential averages of trace and grad_sq with bias correction; a value, `update` returns the next one.

    Single rounds are averaged as they are, negative ones too: clamping first would bias the average, and averaging
    ratios would too (in both directions; specification of the estimator in docs/noise_scale.md).

    Attributes:
        decay: weight of the past, in [0, 1); about ``(1 + decay) / (1 - decay)`` rounds count.
        memory: share of all rounds so far, in [0, 1], that counts where it is more. The noise scale changes ever more
            slowly: a memory of fixed length is soon too short, and one that never forgets keeps the first gradients.
        z: half-width of the interval in standard errors.
        trace, grad_sq: uncorrected averages.
        trace_var, grad_sq_var: sums of squared weights times squared standard errors.
        weight: sum of the weights so far; 1 - decay^rounds where the decay is the same all the time.
        sq_weight: sum of the squared weights.
        rounds: rounds so far.

    >>> t = RunningNoiseScale(decay=0.5).update(NoiseScale(1.0, 8.0, 8.0, 0.0, 0.0))
    >>> t.interval().value
    8.0
    """

    decay: float = 0.98
    z: float = 1.645
    trace: float = 0.0
    grad_sq: float = 0.0
    trace_var: float = 0.0
    grad_sq_var: float = 0.0
    weight: float = 0.0
    sq_weight: float = 0.0
    memory: float = 0.0
    rounds: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"noise_scale.decay must be in [0, 1) (got {self.decay})")
        if not 0 <= self.memory <= 1:
            raise ValueError(f"noise_scale.memory must be in [0, 1] (got {self.memory})")

    @property
    def keep(self) -> float:
        """Weight of the past in the next round."""
        counted = self.memory * self.rounds  # as many as an average of decay (counted - 1) / (counted + 1) counts
        return max(self.decay, (counted - 1) / (counted + 1))

    def update(self, measured: NoiseScale) -> "RunningNoiseScale":
        """The tracker after one more round."""
        keep, new = self.keep, 1 - self.keep
        return replace(
            self,
            trace=keep * self.trace + new * measured.trace,
            grad_sq=keep * self.grad_sq + new * measured.grad_sq,
            trace_var=keep**2 * self.trace_var + new**2 * measured.trace_se**2,
            grad_sq_var=keep**2 * self.grad_sq_var + new**2 * measured.grad_sq_se**2,
            weight=keep * self.weight + new,
            sq_weight=keep**2 * self.sq_weight + new**2,
            rounds=self.rounds + 1,
        )

    def average(self) -> NoiseScale:
        """The averages, bias-corrected, with the standard errors of the averages; NaN before the first round."""
        if not self.weight:
            return NoiseScale(*[math.nan] * 5)
        trace, grad_sq = self.trace / self.weight, self.grad_sq / self.weight
        scale = trace / grad_sq if grad_sq > 0 else math.inf
        errors = math.sqrt(self.grad_sq_var) / self.weight, math.sqrt(self.trace_var) / self.weight
        return NoiseScale(grad_sq, trace, scale, *errors)

    def interval(self, noise_per_unit: float = 0.0, fixed_noise: float = 0.0) -> Interval | None:
        """The averaged noise scale with bounds from the ends of both averages' own intervals; None before a round.

        Args:
            noise_per_unit: energy of further noise on the sum that comes with every unit, such as each client's own
                privacy noise.
            fixed_noise: energy of further noise on the sum whatever its size, such as the server's.

        With further noise the value is the batch at which all noise of the mean equals the gradient in length; without,
        that is the noise scale.
        """
        if not self.weight:
            return None
        mean = self.average()
        top, bottom = mean.trace + self.z * mean.trace_se, mean.trace - self.z * mean.trace_se
        most, least = mean.grad_sq + self.z * mean.grad_sq_se, mean.grad_sq - self.z * mean.grad_sq_se
        pairs = ((mean.trace, mean.grad_sq), (bottom, most), (top, least))
        value, low, high = (_batch_equal_to_noise(max(t + noise_per_unit, 0.0), g, fixed_noise) for t, g in pairs)
        return Interval(value, low, high, self.weight**2 / self.sq_weight)


@dataclass(frozen=True)
class Averages:
    """The three averages of a run.

    Attributes:
        noise: of the noise scale.
        within: of the sampling noise within clients, when halves are measured.
        between: of the drift between clients, when halves are measured.
        gain: of what groups of clients say, when they are asked group by group.
    """

    noise: RunningNoiseScale
    within: RunningNoiseScale
    between: RunningNoiseScale
    gain: RunningGain = field(default_factory=RunningGain)

    @classmethod
    def start(cls, decay: float, z: float, memory: float = 0.0) -> "Averages":
        """Before the first round."""
        nothing = RunningNoiseScale(decay, z, memory=memory)
        return cls(nothing, nothing, nothing)

    def restarted(self) -> "Averages":
        """As before the first round."""
        return Averages.start(self.noise.decay, self.noise.z, self.noise.memory)

    def update(
        self, noise: NoiseScale | None, drift: Drift | None, groups: GroupSums | None = None, every: int = 1
    ) -> "Averages":
        """After one more round, with what was measured in it; groups are in one round of ``every``."""
        noted = self if noise is None else replace(self, noise=self.noise.update(noise))
        if groups is not None:
            mean = noted.noise.average()
            gain = self.gain.update(groups, self.noise.keep**every, mean.grad_sq, mean.grad_sq_se)
            noted = replace(noted, gain=gain)
        if drift is None:
            return noted
        return replace(noted, within=self.within.update(drift.within()), between=self.between.update(drift.between()))

    def half(self) -> Interval | None:
        """B_half of the gain curve; None while it has no interval."""
        curve = fit(self.gain)
        if curve is None or math.isnan(curve.half_low):
            return None
        return Interval(curve.half, curve.half_low, curve.half_high, self.gain.weight**2 / self.gain.sq_weight)


def _batch_equal_to_noise(trace: float, grad_sq: float, fixed_noise: float) -> float:
    """The B that solves ``trace / B + fixed_noise / B^2 = grad_sq``."""
    if grad_sq <= 0:
        return math.inf
    return (trace + math.sqrt(trace**2 + 4 * grad_sq * fixed_noise)) / (2 * grad_sq)


Tracker = RunningNoiseScale
"""Its name in 0.1."""
