"""When a noisy loss passes a goal: a smoothed curve that only falls, and how sure the moment is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
HALF_WIDTH = 0.1
"""Of the window of the mean, as a share of the observations before it; one observation at least."""
MOST = 1_000
"""Observations that a curve has at most: neighbours are averaged to get there."""


@dataclass(frozen=True)
class Falling:
    """A loss that falls with every point, on lines between them.

    Attributes:
        steps: (n,) rising.
        losses: (n,) falling.
    """

    steps: Floats
    losses: Floats

    def after(self, steps: float) -> float:
        """The loss after so many steps; at the ends that of the first and last point."""
        return float(np.interp(steps, self.steps, self.losses))

    def steps_to(self, loss: float) -> float:
        """Steps after which the loss is ``loss``; NaN if it never is.

        >>> Falling(np.array([0.0, 4.0]), np.array([3.0, 1.0])).steps_to(2.5)
        1.0
        """
        if loss < self.losses[-1]:
            return float("nan")
        return float(np.interp(-loss, -self.losses, self.steps))


@dataclass(frozen=True)
class LossCurve:
    """A loss over steps, smoothed by centred means, from `loss_curve`.

    Attributes:
        steps: (n,) mean step of each window, rising.
        losses: (n,) mean loss of each window.
        residuals: (n,) what the mean leaves of each observation, scaled to the spread of one observation.
    """

    steps: Floats
    losses: Floats
    residuals: Floats

    @property
    def way(self) -> float:
        """From the first to the lowest loss, >= 0."""
        return float(self.losses[0] - self.losses.min())

    @property
    def climb(self) -> float:
        """How far the smoothed loss was above the lowest before it, at most; >= 0."""
        return float((self.losses - np.minimum.accumulate(self.losses)).max())

    def falling(self) -> Falling:
        """The curve up to its lowest point, as the falling one that is closest to it."""
        return _falling(self.steps, self.losses)

    def resampled(self, rng: np.random.Generator, times: int) -> Iterator[Falling]:
        """The same with the observations' residuals given signs at random (the wild bootstrap)."""
        for _ in range(times):
            signs = rng.choice(np.array([-1.0, 1.0]), size=len(self.residuals))
            yield _falling(self.steps, self.losses + _window_means(signs * self.residuals))


def loss_curve(steps: npt.ArrayLike, losses: npt.ArrayLike) -> LossCurve:
    """Centred means over windows that grow with training; where a window is cut off, its mean step moves too.

    Args:
        steps: (n,) steps done before each observation, rising.
        losses: (n,) observed losses; those that are not finite are left out.

    Raises:
        ValueError: lengths that differ, or fewer than four finite losses.
    """
    at, seen = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if at.shape != seen.shape or at.ndim != 1:
        raise ValueError(f"steps and losses must be equally long (got {at.shape} and {seen.shape})")
    at, seen = at[np.isfinite(seen)], seen[np.isfinite(seen)]
    if len(seen) < 4:
        raise ValueError(f"a curve needs at least 4 finite losses (got {len(seen)})")
    starts = np.arange(0, len(seen), -(-len(seen) // MOST))
    counts = np.diff(starts, append=len(seen))
    at, seen = np.add.reduceat(at, starts) / counts, np.add.reduceat(seen, starts) / counts
    low, high = _windows(len(seen))
    middle, smooth = _window_means(at), _window_means(seen)
    residuals = (seen - _extended(at, middle, smooth)) / np.sqrt(1 - 1 / (high - low))
    return LossCurve(middle, smooth, residuals)


def jumps(losses: npt.ArrayLike) -> float:
    """Standard deviation of a loss on fixed examples about the line between its neighbours, upwards; same unit.

    Only what lies above its neighbours counts: a curve that falls ever more slowly, as losses do, has none.

    Args:
        losses: (n,) of successive evaluations on the same examples; fewer than four give 0.

    >>> jumps([8.0, 4.0, 2.0, 1.0, 0.5])
    0.0
    """
    seen = np.asarray(losses, dtype=np.float64)
    seen = seen[np.isfinite(seen)]
    if len(seen) < 4:
        return 0.0
    above = np.maximum(seen[1:-1] - (seen[:-2] + seen[2:]) / 2, 0.0)  # variance 3/2 of an observation's, half of it up
    return float(np.sqrt(2 * np.mean(above**2) / 1.5))


def _extended(at: Floats, steps: Floats, losses: Floats) -> Floats:
    """The smoothed losses at the observations; beyond the middle of the last window at the slope of its like before."""
    ends = np.interp(at, steps, losses)
    width = max(1, int(HALF_WIDTH * len(at)))
    slope = (losses[-1] - losses[-1 - width]) / (steps[-1] - steps[-1 - width])
    ends += np.maximum(at - steps[-1], 0.0) * slope
    return ends + np.minimum(at - steps[0], 0.0) * (losses[1] - losses[0]) / (steps[1] - steps[0])


def _falling(steps: Floats, losses: Floats) -> Falling:
    """Isotonic regression up to the lowest point: a low outlier is averaged with the higher losses after it."""
    own = np.diff(steps, prepend=-np.inf) > 0  # the last windows may be the same
    steps, losses = steps[own], losses[own]
    end = int(losses.argmin()) + 1
    from scipy.optimize import isotonic_regression

    found = isotonic_regression(losses[:end], increasing=False)
    starts, counts = found.blocks[:-1], np.diff(found.blocks)
    return Falling(np.add.reduceat(steps[:end], starts) / counts, found.x[starts])


def _windows(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First observation of each window, and the one after its last."""
    index = np.arange(count)
    half = np.maximum(1, (HALF_WIDTH * index).astype(np.int64))
    return np.maximum(index - half, 0), np.minimum(index + half + 1, count)


def _window_means(values: Floats) -> Floats:
    low, high = _windows(len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[high] - sums[low]) / (high - low)
