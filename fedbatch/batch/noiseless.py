"""Noiseless-step equivalents along a run: the share 1 / (1 + N_t / B_t) of every step, read in windows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
WINDOWS, LEAST = 24, 4
"""Windows in which a noise scale is read, and the rounds that each has at least."""
BLOCKS = 500
"""Rounds of a window that are drawn anew one by one; of more, stretches of neighbours are."""


@dataclass(frozen=True)
class Rounds:
    """What the rounds of a run say, (T,) each.

    Attributes:
        traces: unbiased estimates of tr(Sigma); NaN where there was none.
        grad_sqs: unbiased estimates of |G|^2; NaN where there was none.
        batch_sizes: > 0, in the unit of the noise scale.
        phases: any labels; a window never reaches over a change.
    """

    traces: Floats
    grad_sqs: Floats
    batch_sizes: Floats
    phases: npt.NDArray[np.int64]


def noiseless_sums(
    rounds: Rounds, steps: float, rng: np.random.Generator, times: int
) -> tuple[float, float, float, Floats]:
    """Noiseless steps, their examples, the share of saturated steps, and (times, 2) resampled sums.

    Args:
        rounds: of the run.
        steps: to count, in (0, T]; the last round counts in part.
        rng: of the resampling, in which rounds of a window are drawn anew.
        times: resamples.

    Raises:
        ValueError: fewer than half of the rounds have estimates, or a batch is not positive.
    """
    count = int(np.ceil(steps))
    share = np.minimum(steps - np.arange(count), 1.0)
    batches = rounds.batch_sizes[:count]
    if not (batches > 0).all():
        raise ValueError("every round needs a batch > 0")
    sums, draws, saturated = np.zeros(2), np.zeros((times, 2)), 0.0
    for members, estimates in _read(rounds, count):
        size, weight = batches[members], share[members]
        mean = estimates.mean(axis=0, keepdims=True)
        sums += _count(mean, size, weight)[0]
        draws += _count(_redrawn(estimates, rng, times), size, weight)
        saturated += float(weight.sum()) * (mean[0, 1] <= 0)
    return float(sums[0]), float(sums[1]), float(saturated / steps), draws


def _read(rounds: Rounds, count: int) -> Iterator[tuple[npt.NDArray[np.int64], Floats]]:
    """Each window's rounds, and (n, 2) estimates of trace and |G|^2 of those that have them."""
    estimates = np.stack([rounds.traces[:count], rounds.grad_sqs[:count]], axis=1)
    known = np.flatnonzero(np.isfinite(estimates).all(axis=1))
    if 2 * len(known) < count:
        raise ValueError(f"only {len(known)} of {count} rounds have an estimate of their noise; it needs two clients")
    owner = np.maximum(np.searchsorted(known, np.arange(count), side="right") - 1, 0)  # of rounds without: the last
    for stretch in np.split(np.arange(len(known)), np.flatnonzero(np.diff(rounds.phases[known])) + 1):
        windows = min(max(round(WINDOWS * len(stretch) / len(known)), 1), max(len(stretch) // LEAST, 1))
        for window in np.array_split(stretch, windows):
            members = np.flatnonzero((owner >= window[0]) & (owner <= window[-1]))
            yield members, estimates[known[window]]


def _redrawn(estimates: Floats, rng: np.random.Generator, times: int) -> Floats:
    """(R, 2) means of n - 1 of n rounds drawn with replacement, whose spread is that of the mean of n."""
    starts = np.arange(0, len(estimates), -(-len(estimates) // BLOCKS))
    blocks = np.add.reduceat(estimates, starts) / np.diff(starts, append=len(estimates))[:, None]
    count = len(blocks)
    drawn = rng.multinomial(max(count - 1, 1), np.full(count, 1 / count), size=times)
    return drawn @ blocks / max(count - 1, 1)


def _count(means: Floats, batches: Floats, weights: Floats) -> Floats:
    """(R, 2) noiseless steps and examples of a window's rounds, for (R, 2) means of trace and |G|^2.

    Where |G|^2 <= 0 a step counts for nothing and all its examples for noise: the sum saturates, nothing is dropped.
    """
    trace, grad_sq = np.maximum(means, 0.0).T
    sizes, which = np.unique(batches, return_inverse=True)
    weight = np.bincount(which, weights)
    whole = grad_sq[:, None] * sizes + trace[:, None]
    noiseless = np.divide(grad_sq[:, None] * sizes, whole, out=np.zeros_like(whole), where=grad_sq[:, None] > 0)
    return np.stack([noiseless @ weight, (1 - noiseless) @ (weight * sizes)], axis=1)
