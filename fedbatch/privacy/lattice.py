"""Sums of integers with integer noise, as secure aggregation adds them: a lattice, Skellam noise on it, and its cost.

Secure aggregation adds integers modulo ``2^bits``. So a sum x of clipped contributions is divided by the length of a
step and rounded without bias to ``floor(x + u)``, with u uniform. Each client adds Skellam noise, the difference of two
Poisson numbers, because shares of it add up to Skellam noise exactly (Agarwal, Kairouz and Liu 2021).

**Sensitivity.** A unit moves x by v of length ``S = 1 / quantum`` at most, in d coordinates. With the same u, which
does not depend on data, ``floor(x + u) - floor(x - v + u)`` is v rounded without bias: v + e, where the ``e_i`` are
independent of each other, have mean 0 and variance 1/4 at most, and lie in intervals of length 1. By Hoeffding's
inequality for ``2 v . e`` and for ``|e|^2``, but for a probability of 2 `FAILURE`,
``|v + e|^2 <= S^2 + d/4 + sqrt(2 ln(1/FAILURE)) (S + sqrt(d)/2)``. Always ``|v + e| <= S + sqrt(d)``. For integers,
the sum of absolute values is at most ``|v + e|^2``, and at most ``sqrt(d) |v + e|``.

**Cost.** With ``D2`` and ``D1`` these bounds and mu the noise's variance, the Renyi divergence at every whole order
``a >= 2`` is at most ``a D2^2 / (2 mu) + min(((2 a - 1) D2^2 + 6 D1) / (4 mu^2), 3 D1 / (2 mu))`` (theorem 3.5 there).
This is at most ``a / (2 s^2)``, what a Gaussian with noise multiplier s costs, if
``1 / s^2 = D2^2 / mu + min((D2^2 + 3/2 D1) / mu^2, 3/2 D1 / mu)``. Under Poisson sampling, the divergence at a whole
order is a sum over the divergences at whole orders up to it; a symmetric noise has the larger one in the direction of
that sum (Mironov, Talwar and Zhang 2019). So at whole orders a sampled release costs no more than the sampled Gaussian
with s. The ledger's noise multiplier is this s, and `deviation` is the noise that has it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Floats = np.ndarray[Any, np.dtype[np.float64]]
Sums = tuple[Tensor, Floats]
FAILURE = 1e-30
"""Probability, in each release, of more than the accounted sensitivity; ten million releases do not move delta."""
WRAPPED = 1e-12
"""Probability, in each round, with which a sum may wrap around."""
EXTRAS = 2
"""Extra coordinates that a release may have beside the update."""
MOST_STEPS = 30_000
"""Deviation of a client's noise in steps, beyond which the Bessel functions of its distribution cannot be computed."""
TABLE = 12.5
"""Deviations that the table of the distribution reaches (1e-35 beyond)."""


@dataclass(frozen=True)
class Lattice:
    """How integers stand for a release.

    Attributes:
        quantum: length of a step, in lengths of the longest contribution of one unit with its extra coordinates;
            in (0, 1].
        bits: of the modulus, 2 .. 48.
    """

    quantum: float
    bits: int

    def deviation(self, accounted: float, size: int) -> float:
        """Standard deviation of the noise on a whole sum, in steps, that costs what a Gaussian's noise does.

        Args:
            accounted: noise multiplier s of the Gaussian, >= 0.
            size: d, coordinates of the update.
        """
        square, absolute = sensitivities(1 / self.quantum, size + EXTRAS)
        s2, more = accounted**2, square + 1.5 * absolute
        quadratic = (s2 * square + math.sqrt(s2**2 * square**2 + 4 * s2 * more)) / 2
        return math.sqrt(min(quadratic, s2 * more))

    def noise(self, accounted: float, size: int) -> float:
        """The same in lengths of a contribution: a noise multiplier, above ``accounted``."""
        return self.deviation(accounted, size) * self.quantum

    def bits_needed(self, batch: float, most: float, clients: int, deviation: float, size: int) -> int:
        """Bits with which a round's sum wraps around with a probability below `WRAPPED`.

        Args:
            batch: expected units of a round.
            most: units of a round if all are drawn.
            clients: that add noise and round.
            deviation: of the noise of all of them, in steps.
            size: d, coordinates of the update.
        """
        log = math.log(4 * (size + EXTRAS) / WRAPPED)
        drawn = min(most, batch + math.sqrt(2 * batch * log) + log)  # Bernstein's inequality, here and for the noise
        largest = drawn / self.quantum + deviation * math.sqrt(2 * log) + log + clients
        return math.ceil(math.log2(largest + 1)) + 1

    @property
    def words(self) -> str:
        """The noise in words."""
        return f"Skellam on integers modulo 2^{self.bits}, in steps of {self.quantum:g} clip norms"


@dataclass(frozen=True)
class Grid:
    """The lattice of one release.

    Attributes:
        update: length of a step of each coordinate of the update.
        extras: (e,) of each extra coordinate.
        deviation: of the noise on a whole sum, in steps, the same for all coordinates.
        bits: of the modulus.
    """

    update: float
    extras: Floats
    deviation: float
    bits: int

    def rounded(self, sums: Sums, uniform: Floats) -> Sums:
        """Sums (d,) and (e,) as whole numbers of steps, by uniform draws (d + e,) in [0, 1)."""
        (update, extras), size = sums, sums[0].numel()
        draws = torch.from_numpy(uniform[:size]).to(update.device)
        return (update / self.update + draws).floor_(), np.floor(extras / self.extras + uniform[size:])

    def wrapped(self, sums: Sums) -> Sums:
        """Whole numbers of steps modulo ``2^bits``, in ``-2^(bits-1) .. 2^(bits-1) - 1``; exact in float64."""
        half = 2.0 ** (self.bits - 1)
        update, extras = sums
        return (update + half).remainder_(2 * half).sub_(half), (extras + half) % (2 * half) - half

    def decoded(self, sums: Sums) -> Sums:
        """The sums that whole numbers of steps, added up by anyone in any order, stand for."""
        update, extras = self.wrapped(sums)
        return update.mul_(self.update), extras * self.extras


def sensitivities(length: float, size: int) -> tuple[float, float]:
    """Bounds on the squared length and on the sum of absolute values of a rounded change.

    Args:
        length: S, of the change before rounding, in steps.
        size: coordinates.
    """
    root = math.sqrt(size)
    usual = length**2 + size / 4 + math.sqrt(2 * math.log(1 / FAILURE)) * (length + root / 2)
    square = min(usual, (length + root) ** 2)
    return square, min(root * math.sqrt(square), square)


def skellam(variance: float, uniform: Floats) -> Floats:
    """Skellam numbers (n,) of mean 0, by inversion of uniform draws (n,) in [0, 1).

    Raises:
        ValueError: the variance is beyond ``MOST_STEPS^2``.
    """
    if variance > MOST_STEPS**2 * (1 + 1e-9):
        raise ValueError(f"the variance must be at most {MOST_STEPS}^2 (got {variance:g})")
    table = _distribution(variance)
    places = np.searchsorted(table, uniform + 2.0**-54)
    return (places - len(table) // 2).astype(np.float64)


@lru_cache(maxsize=4)
def _distribution(variance: float) -> Floats:
    """Distribution function at -n .. n, n beyond all that 53 bits can tell from 0 and 1."""
    from scipy.special import ive  # comes with dp-accounting

    n = math.ceil(TABLE * math.sqrt(variance) + 40)
    one_side = ive(np.arange(n + 1), variance)
    table = np.cumsum(np.concatenate([one_side[:0:-1], one_side]))
    return np.minimum(table, 1.0)
