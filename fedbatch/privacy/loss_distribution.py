"""Privacy loss distributions of schedules of Poisson-subsampled Gaussian releases (Koskela et al. 2020).

The library composes them and reads epsilon. Here is the distribution of one step at all points at once (the library
goes point by point, which was nine tenths of the time), and the spacing of the points. "Connect the dots"
(Doroshenko et al. 2022) gives an upper bound at any spacing, so the spacing follows what it costs and what it gains.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

Floats = NDArray[np.float64]
Phases = Sequence[tuple[float, float, float]]
SPACING = 1e-4
"""Of privacy losses, where nothing asks for another."""
POINTS, POINTS_OF_STEPS = 1e6, 3e6
"""About so many of a whole schedule, and at most so many of its distinct steps together: two seconds each."""
BLUR, POINTS_TO_REFINE = 2e-3, 2e5
"""Share that rounding may add to the variance of the loss, where so many points of the steps suffice for it."""
TRUNCATED = 0.5 * math.exp(-50)
"""Probability of each tail of the noise that is taken for an infinite loss, as in the library."""
FINEST, COARSEST = 1e-6, 100.0
"""Spacings between which float64 tells a point from the next."""
CUT_OFF = 35.0
"""-ln of the probability at which a composition is cut off, about as in the library."""


def composed(phases: Phases, spacing: float = SPACING) -> Any:
    """The library's distribution of a whole schedule; the order of its phases makes no difference, not even rounding.

    Args:
        phases: ``(q, noise_multiplier, steps)`` each; q in (0, 1], noise_multiplier > 0, steps >= 1.
        spacing: of privacy losses, where nothing asks for another; see `spacing_of`.

    Returns:
        A ``PrivacyLossDistribution``, whose ``get_epsilon_for_delta`` is an upper bound; None where losses are so large
        that no spacing holds them.
    """
    steps = Counter[tuple[float, float]]()
    for q, sigma, count in phases:
        steps[q, sigma] += int(count)
    spacing = spacing_of(steps, spacing)
    if spacing > COARSEST:
        return None
    groups = [(n, [of_step(q, sigma, spacing) for q, sigma in alike]) for n, alike in _by_count(steps) if alike]
    return _product([_product(alike).self_compose(n) for n, alike in groups])


def _by_count(steps: Counter[tuple[float, float]]) -> list[tuple[int, list[tuple[float, float]]]]:
    """Phases by their number of steps, or where these are many, by the powers of two of which they are sums.

    Composing a phase with itself takes longer than two phases with each other, so those alike are composed first.
    """
    counts = set(steps.values())
    if len(counts) <= 16:
        return [(n, sorted(step for step in steps if steps[step] == n)) for n in sorted(counts)]
    powers = [2**bit for bit in range(max(counts).bit_length())]
    return [(n, sorted(step for step in steps if steps[step] & n)) for n in powers]


def _product(parts: list[Any]) -> Any:
    """The composition of all; by two, so that none is met more often than a tree is high."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [*(left.compose(right) for left, right in pairs), *parts[len(parts) // 2 * 2 :]]
    return parts[0]


def spacing_of(steps: Counter[tuple[float, float]], usual: float = SPACING) -> float:
    """The spacing of privacy losses for a schedule of ``steps[q, noise_multiplier]``.

    The usual one; finer where the losses of a step are so small that rounding would add more than `BLUR` to the
    variance of their sum (a quarter of its square each, at most); and as coarse as `POINTS` wants.
    """
    # The Renyi divergence of order 2 is about the variance of the loss, and has a closed form (Mironov et al. 2019).
    second = sum(count * _second_divergence(q, sigma) for (q, sigma), count in steps.items())
    widths = [float(np.ptp(loss_bounds(q, sigma))) for q, sigma in steps]
    least, most = sum(widths) / POINTS_TO_REFINE, sum(widths) / POINTS_OF_STEPS
    whole = second + 2 * math.sqrt(2 * CUT_OFF * second) + max(widths)
    coarser = usual / SPACING
    fine = max(math.sqrt(4 * BLUR * second / steps.total()), coarser * least, FINEST)
    return max(min(usual, fine), coarser * most, coarser * whole / POINTS)


@lru_cache(maxsize=8)
def of_step(q: float, sigma: float, spacing: float = SPACING) -> Any:
    """The library's distribution of one step; remembered, for a schedule is priced again as a run goes on."""
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    def dots(first: int, last: int, deltas: Floats) -> Any:
        # dense: the library takes minutes to compose a sparse one with itself millions of times
        return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(spacing, first, last, deltas).to_dense_pmf()

    low, high = loss_bounds(q, sigma) / spacing
    first, last = math.floor(low), math.ceil(high)
    removed = dots(first, last, removal(q, sigma, np.arange(first, last + 1) * spacing))
    if q == 1:
        return PrivacyLossDistribution(removed)
    return PrivacyLossDistribution(
        removed, dots(-last, -first, addition(q, sigma, np.arange(-last, -first + 1) * spacing))
    )


def loss_bounds(q: float, sigma: float) -> Floats:
    """Least and largest (2,) privacy loss of one step on removing a unit, but for `TRUNCATED`; on adding, negated."""
    far = -float(ndtri(TRUNCATED)) / sigma + 0.5 / sigma**2
    return np.logaddexp(_log_not(q), math.log(q) + np.array([-far, far]))


def removal(q: float, sigma: float, epsilons: Floats) -> Floats:
    """The delta (n,) of one step at each epsilon (n,), for data with a unit against data without it.

    The releases are ``(1 - q) N(0, sigma^2) + q N(-1, sigma^2)`` and ``N(0, sigma^2)``. The loss falls with the
    release, so delta is a difference of their distribution functions where the loss is epsilon.
    """
    deltas = -np.expm1(np.minimum(epsilons, 0.0))  # no release has a loss below ln(1 - q)
    inside = epsilons > _log_not(q)
    epsilon = epsilons[inside]
    x = -(sigma**2) * _unsampled(q, epsilon) - 0.5
    with_unit = (1 - q) * ndtr(x / sigma) + q * ndtr((x + 1) / sigma)
    deltas[inside] = with_unit - np.exp(epsilon + log_ndtr(x / sigma))
    return np.clip(deltas, 0.0, 1.0)


def addition(q: float, sigma: float, epsilons: Floats) -> Floats:
    """As `removal`, for data without the unit against data with it: ``N(0)`` and ``(1 - q) N(0) + q N(1)``; q < 1."""
    deltas = np.zeros_like(epsilons)  # no release has a loss above -ln(1 - q)
    inside = epsilons < -_log_not(q)
    epsilon = epsilons[inside]
    x = sigma**2 * _unsampled(q, -epsilon) + 0.5
    with_unit = (1 - q) * ndtr(x / sigma) + q * ndtr((x - 1) / sigma)
    deltas[inside] = ndtr(x / sigma) - np.exp(epsilon) * with_unit
    return np.clip(deltas, 0.0, 1.0)


def _unsampled(q: float, loss: Floats) -> Floats:
    """The loss without sampling (n,) at which the loss with it is ``loss``: ``ln((e^loss - 1 + q) / q)``."""
    return loss - math.log(q) + np.log(-np.expm1(_log_not(q) - loss))


def _log_not(q: float) -> float:
    return math.log1p(-q) if q < 1 else -math.inf


def _second_divergence(q: float, sigma: float) -> float:
    return math.log1p(q**2 * math.expm1(sigma**-2)) if sigma > 0.05 else sigma**-2
