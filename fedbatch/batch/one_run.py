"""What every batch would cost, from the noise scales along one run.

A step on batch B, at the rate that suits it, makes 1 / (1 + N_t / B) of the progress of a step without noise, N_t the
noise scale at that moment (McCandlish et al. 2018, section 2.2). Counted along a run up to a loss,

    S_min = sum_t 1 / (1 + N_t / B_t)        E_min = sum_t N_t / (1 + N_t / B_t)        B_crit = E_min / S_min

are the noiseless steps that it made and the least examples for them, so that a batch B' needs S_min + E_min / B' steps
and E_min + S_min B' examples. At the run's own batch this is its own number of steps, whatever N_t: an identity.
After local steps, read rounds for steps and clients for examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedbatch.batch.critical import COVERAGE, Bounds, Floats
from fedbatch.batch.loss_curve import Falling, LossCurve
from fedbatch.batch.noiseless import Rounds, noiseless_sums

RESAMPLES = 300


@dataclass(frozen=True)
class Cost:
    """What a batch needs to get to a loss, with 90 % intervals: ``examples`` is ``batch * steps``."""

    batch: float
    steps: float
    examples: float
    steps_interval: Bounds
    examples_interval: Bounds


@dataclass(frozen=True)
class ToLoss:
    """What one run says of the way to a loss, with 90 % intervals from resampled rounds.

    The intervals hold what is not known of the noise scales and of the moment at which the loss was passed. They do
    not hold how far the law itself is off, nor that another seed takes another way.

    Attributes:
        loss: the goal.
        steps: of the run; equal to ``s_min`` plus ``e_min`` over its batch, if that was one.
        examples: of the run.
        s_min: steps with an infinite batch.
        e_min: examples with the smallest batch.
        b_crit: ``e_min / s_min``; infinite where no gradient was seen through the noise.
        s_min_interval: bounds of ``s_min``.
        e_min_interval: bounds of ``e_min``.
        b_crit_interval: bounds of ``b_crit``.
        saturated: share of the steps in whose window the estimate of |G|^2 was not positive, in [0, 1].
        draws: (R, 2) resampled ``s_min`` and ``e_min``.
    """

    loss: float
    steps: float
    examples: float
    s_min: float
    e_min: float
    b_crit: float
    s_min_interval: Bounds
    e_min_interval: Bounds
    b_crit_interval: Bounds
    saturated: float
    draws: Floats = field(repr=False, compare=False)

    def at(self, batch: float) -> Cost:
        """Steps and examples that ``batch`` > 0 would need, at the learning rate that suits it."""
        steps = self.s_min + self.e_min / batch
        low, high = interval(self.draws @ np.array([1, 1 / batch]))
        return Cost(batch, steps, batch * steps, (low, high), (batch * low, batch * high))

    def in_units_of(self, size: float) -> "ToLoss":
        """The same with batches counted in portions of ``size``, as clients of so many examples are."""
        low, high = self.b_crit_interval
        return replace(
            self,
            examples=self.examples / size,
            e_min=self.e_min / size,
            b_crit=self.b_crit / size,
            e_min_interval=(self.e_min_interval[0] / size, self.e_min_interval[1] / size),
            b_crit_interval=(low / size, high / size),
            draws=self.draws / np.array([1.0, size]),
        )


def to_losses(rounds: Rounds, curve: LossCurve, losses: Sequence[float], seed: int = 0) -> list[ToLoss]:
    """Sums up to each of the losses that the curve passes within the rounds.

    Args:
        rounds: of the run, from its first.
        curve: its loss over rounds.
        losses: the goals.
        seed: of the resampling.

    Raises:
        ValueError: fewer than half of the rounds up to a loss have estimates, or a batch is not positive.
    """
    rng = np.random.default_rng(seed)
    falling, again = curve.falling(), list(curve.resampled(rng, RESAMPLES))
    found = []
    for loss in losses:
        steps = falling.steps_to(loss)
        if loss < falling.losses[0] and steps <= len(rounds.traces):
            factors = np.array([_steps_to(each, loss, falling) for each in again]) / steps
            found.append(_to_loss(rounds, loss, steps, factors, rng))
    return found


def _to_loss(rounds: Rounds, loss: float, steps: float, factors: Floats, rng: np.random.Generator) -> ToLoss:
    s_min, e_min, saturated, draws = noiseless_sums(rounds, steps, rng, RESAMPLES)
    examples = float(np.interp(steps, np.arange(len(rounds.traces) + 1), np.cumsum([0.0, *rounds.batch_sizes])))
    draws *= factors[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(draws[:, 0] > 0, draws[:, 1] / draws[:, 0], np.inf)
    b_crit = e_min / s_min if s_min > 0 else np.inf
    bounds = interval(draws[:, 0]), interval(draws[:, 1]), interval(ratios)
    return ToLoss(loss, steps, examples, s_min, e_min, b_crit, *bounds, saturated, draws)


def _steps_to(resampled: Falling, loss: float, curve: Falling) -> float:
    """Steps to a loss; a resample that does not get there goes on at the slope of the curve's last third."""
    if loss >= resampled.losses[-1]:
        return resampled.steps_to(loss)
    end = float(curve.steps[-1])
    slope = (curve.after(2 * end / 3) - curve.losses[-1]) / (end / 3)
    return float(resampled.steps[-1] + (resampled.losses[-1] - loss) / slope if slope > 0 else end)


def interval(values: Floats) -> Bounds:
    """The middle 90 % of (R,) values, which may be infinite."""
    ordered, out = np.sort(values), round(len(values) * (1 - COVERAGE) / 2)
    return float(ordered[out]), float(ordered[-1 - out])
