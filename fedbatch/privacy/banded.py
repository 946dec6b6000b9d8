"""Banded Toeplitz strategies: how noise is correlated over rounds, so that much of it cancels in sums of updates.

The release of round t has the noise ``sigma C y_t`` with ``y = S^-1 z``, z independent standard normal, and S lower
triangular and Toeplitz with b coefficients (Choquette-Choo et al. 2023, "(Amplified) Banded Matrix Factorization").

Why the usual accountant holds. Multiplying by S shows the same as the rows ``sum_j c_j g_(t-j) + z_t``, where g_t is
what round t sums, divided by its own ``sigma C``. A unit that takes part in round s adds ``c_0 g, ..., c_(b-1) g`` to
rows s to s+b-1 and nothing to others, a vector of length at most ``1 / sigma`` because ``|c| = 1``. Given all earlier
rows, what others add to these rows is a function of earlier rows and of draws without the unit. So they are one
Poisson-subsampled Gaussian of noise sigma. The unit's group comes up every b rounds, when these rows are over: its
events are composed, at most ``ceil(T / b)`` of them. Each round may have a sigma and a C of its own, which may follow
from earlier rows, for each is divided by its own. Extra coordinates have independent noise: they add to row s alone, so
the length is the same.

Why a round that is done again costs everyone one event without sampling. The rows of the first attempt are further
rows, with noise of their own, to which a unit of an earlier round adds ``c_j g`` with ``sum_j c_j^2 <= 1``. Its coin is
the one of before and may be known by now, so q is 1. Units of the round itself pay for both attempts.
"""

from functools import lru_cache

import numpy as np

from fedbatch.privacy.randomness import Floats

Coefficients = tuple[float, ...]
"""c_0 .. c_(b-1) >= 0, of length 1."""
INDEPENDENT: Coefficients = (1.0,)


@lru_cache(maxsize=64)
def coefficients(bands: int, rounds: int) -> Coefficients:
    """The strategy of ``bands`` bands with the least `error` over ``rounds`` rounds.

    >>> coefficients(1, 100)
    (1.0,)
    """
    if bands == 1:
        return INDEPENDENT
    from scipy.optimize import minimize  # comes with dp-accounting

    start = square_root(bands)
    start = start / start[0]
    found = minimize(
        _log_loss, start[1:], args=(rounds,), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (bands - 1)
    )
    best = np.concatenate([[1.0], found.x])
    return tuple((best / np.linalg.norm(best)).tolist())


def square_root(bands: int) -> Floats:
    """The first ``bands`` coefficients of the square root of the prefix sums, 1, 1/2, 3/8 ..., made of length 1."""
    steps = np.arange(1, bands)
    values = np.concatenate([[1.0], np.cumprod((2 * steps - 1) / (2 * steps))])
    return np.asarray(values / np.linalg.norm(values))


def error(strategy: Coefficients, rounds: int) -> float:
    """Root mean square of the noise on the sum of the first 1, 2 .. ``rounds`` releases, at noise multiplier 1.

    >>> error(INDEPENDENT, 3) ** 2  # (1 + 2 + 3) / 3
    2.0000000000000004
    """
    return float(np.sqrt(_weights(rounds) @ np.cumsum(inverse(strategy, rounds)) ** 2 / rounds))


def variance(strategy: Coefficients, round_: int) -> float:
    """Variance of each coordinate of ``y`` in a round, from 0."""
    return float((inverse(strategy, round_ + 1) ** 2).sum()) if len(strategy) > 1 else 1.0


def inverse(strategy: Coefficients, count: int) -> Floats:
    """The first ``count`` coefficients of the inverse of the Toeplitz matrix."""
    return _divided(np.eye(1, count)[0], np.array(strategy))


def _divided(series: Floats, by: Floats) -> Floats:
    """A power series (n,) divided by another (b,)."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], by, series))


def _weights(rounds: int) -> Floats:
    """In how many prefix sums the k-th coefficient of the summed inverse stands."""
    return np.arange(rounds, 0, -1.0)


def _log_loss(rest: Floats, rounds: int) -> tuple[float, Floats]:
    """Logarithm of the squared error of ``(1, *rest)`` made of length 1, less a constant, and its gradient (b - 1,)."""
    strategy, weights = np.concatenate([[1.0], rest]), _weights(rounds)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _divided(np.ones(rounds), strategy)
        squared = float(weights @ sums**2)
        if not np.isfinite(squared):  # a step too far, to a series that diverges
            return 1e300, np.zeros_like(rest)
        moved = _divided(sums, strategy)  # the j-th coefficient moves the sums by this, j rounds later
        slopes = [float((weights * sums)[j:] @ moved[: max(rounds - j, 0)]) for j in range(1, len(strategy))]
    length = 1 + float(rest @ rest)
    return np.log(length) + np.log(squared), 2 * rest / length - 2 * np.array(slopes) / squared
