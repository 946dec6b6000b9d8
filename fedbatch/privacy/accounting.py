"""Epsilon of Poisson-subsampled Gaussian releases, and the noise that a target epsilon needs.

A schedule is a sequence of phases ``(q, noise_multiplier, steps)``: each step takes every unit (example or client) with
probability q and releases the sum of clipped contributions with Gaussian noise of ``noise_multiplier`` clip norms.
Neighbouring data sets differ by adding or removing one unit. Phases are composed, never averaged: the cost of a step
is far from linear in q. Needs the extra ``dp``.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from importlib import metadata
from typing import Any

import numpy as np

from fedbatch.core.errors import ConfigError
from fedbatch.privacy import loss_distribution

PhaseSpec = tuple[float, float, float]
Divergences = np.ndarray[Any, np.dtype[np.float64]]
WHOLE = "rdp at whole orders"
"""By Renyi divergence at whole orders from 2 alone, where nothing else is proven of the noise (`privacy.lattice`)."""
ACCOUNTANTS = ("auto", "pld", "rdp", WHOLE)
MOST_FOR_BOTH = 16
"""Distinct phases beyond which "auto" is "pld": Renyi divergences take 30 ms each there, and are hardly ever less."""

ROUGH_SPACING = 1e-3
"""Of privacy losses, for tables."""


def epsilon(phases: Sequence[PhaseSpec], delta: float, accountant: str = "auto") -> float:
    """Upper bound on epsilon at ``delta`` of a schedule, whatever the order of its phases.

    Args:
        phases: ``(q, noise_multiplier, steps)`` each; q in [0, 1], noise_multiplier >= 0, steps >= 0.
        delta: in (0, 1); to mean anything, well below one over the number of units.
        accountant: "pld" (privacy loss distributions, tight; Koskela et al. 2020), "rdp" (Renyi divergence, 5-25 %
            above; Mironov 2017, Mironov et al. 2019), or "auto", the smaller of the two, which both are bounds.

    Returns:
        Epsilon >= 0; infinite where a phase has no noise.

    Raises:
        ValueError: an argument out of range.

    >>> round(epsilon([(0.01, 1.0, 1000)], 1e-5), 3)
    1.828
    >>> epsilon([], 1e-5)
    0.0
    """
    return _bound(phases, delta, accountant)[0]


def _bound(phases: Sequence[PhaseSpec], delta: float, accountant: str) -> tuple[float, str]:
    """Epsilon, and the accountant that it is by."""
    check(phases, delta, accountant)
    spent = [(q, sigma, steps) for q, sigma, steps in phases if steps and q]
    if any(sigma == 0 for _, sigma, _ in spent):
        return float("inf"), accountant
    if not spent:
        return 0.0, accountant
    return min((_compose(tuple(spent), delta, one), one) for one in _tried(spent, accountant))


def _tried(phases: Sequence[PhaseSpec], accountant: str) -> tuple[str, ...]:
    """The accountants of which the smallest bound is taken, the quickest first."""
    if accountant != "auto":
        return (accountant,)
    return ("rdp", "pld") if len({(q, sigma) for q, sigma, _ in phases}) <= MOST_FOR_BOTH else ("pld",)


def noise_multiplier(
    target_epsilon: float, delta: float, phases: Sequence[PhaseSpec], accountant: str = "auto"
) -> float:
    """The factor on the phases' noise multipliers at which the schedule costs ``target_epsilon``.

    Args:
        target_epsilon: > 0.
        delta: in (0, 1).
        phases: ``(q, relative_noise, steps)``; relative noise 1 everywhere for one constant noise multiplier.
        accountant: as in `epsilon`.

    Returns:
        The factor; the epsilon of the scaled schedule is at most the target, and within 0.1 % of it.

    Raises:
        ValueError: an argument out of range, or a phase without noise to scale.

    >>> factor = noise_multiplier(2.0, 1e-5, [(0.01, 1.0, 1000)])
    >>> 1.999 < epsilon([(0.01, factor, 1000)], 1e-5) <= 2.0
    True
    """
    check(phases, delta, accountant)
    spent = [(q, relative, steps) for q, relative, steps in phases if steps and q]
    if target_epsilon <= 0:
        raise ValueError(f"target_epsilon must be > 0 (got {target_epsilon})")
    if not spent or any(relative == 0 for _, relative, _ in spent):
        raise ValueError("noise_multiplier needs at least one step, and relative noise > 0 in every phase")

    def cost(factor: float, by: str) -> float:
        return epsilon([(q, factor * relative, steps) for q, relative, steps in spent], delta, by)

    factor, found = 1.0, list[float]()
    for one in _tried(spent, accountant):  # each starts its search where the one before has ended
        factor = _least(partial(cost, by=one), target_epsilon, factor)
        found.append(factor)
    return min(found)


def rough_noise(
    target_epsilon: float, delta: float, phases: Sequence[PhaseSpec], start: float = 1.0, accountant: str = "pld"
) -> float:
    """As `noise_multiplier`, but quick, for tables: never too little noise, and about a percent too much at most.

    Args:
        target_epsilon: > 0.
        delta: in (0, 1).
        phases: ``(q, relative_noise, steps)``, each more than nothing.
        start: where the search begins; best the noise of a similar schedule.
        accountant: "pld", or `WHOLE` where it alone is proven.
    """
    library()

    def cost(factor: float) -> float:
        scaled = [(q, factor * relative, steps) for q, relative, steps in phases]
        if accountant == WHOLE:
            return rdp_epsilon(divergences(scaled, WHOLE), delta)
        losses = loss_distribution.composed(scaled, ROUGH_SPACING)
        return float(losses.get_epsilon_for_delta(delta)) if losses else float("inf")

    return _least(cost, target_epsilon, start, tolerance=2e-3)


def _least(cost: Callable[[float], float], target: float, start: float, tolerance: float = 1e-5) -> float:
    """The least factor, to about ``tolerance``, with ``cost(factor) <= target``, for a cost that falls with it."""

    def excess(log_factor: float) -> float:
        return math.log(max(cost(math.exp(log_factor)), 1e-9) / target)

    low = high = math.log(start)
    while excess(high) > 0:
        low, high = high, high + 0.7
    while low == high or excess(low) <= 0:
        low, high = low - 0.3, low
    from scipy.optimize import brentq  # comes with dp-accounting

    root = math.exp(brentq(excess, low, high, xtol=tolerance))
    while cost(root) > target:  # the root is found from either side; the budget only from one
        root *= 1 + tolerance
    return root


def deltas(phases: Sequence[PhaseSpec], epsilons: Divergences) -> Divergences:
    """Upper bounds (n,) on delta of a schedule at each of ``epsilons`` (n,), which together are its trade-off."""
    spent = [(q, sigma, steps) for q, sigma, steps in phases if steps and q]
    if not spent:
        return np.zeros_like(epsilons)
    if any(sigma == 0 for _, sigma, _ in spent):
        return np.ones_like(epsilons)
    library()
    losses = loss_distribution.composed(spent)
    if losses is None:
        return np.ones_like(epsilons)
    return np.asarray(losses.get_delta_for_epsilon(epsilons), dtype=np.float64)


@lru_cache(maxsize=256)
def _compose(spent: tuple[PhaseSpec, ...], delta: float, accountant: str) -> float:
    """Epsilon; remembered, for a run asks before it starts and again at its end, at a second each."""
    if accountant == "rdp":
        return max(0.0, float(accountant_of("rdp").compose(event(spent)).get_epsilon(delta)))
    if accountant == WHOLE:
        return rdp_epsilon(divergences(spent, WHOLE), delta)
    library()
    losses = loss_distribution.composed(spent)
    return max(0.0, float(losses.get_epsilon_for_delta(delta))) if losses else float("inf")


@lru_cache(maxsize=4096)
def rdp_of_step(sample_rate: float, sigma: float) -> Divergences:
    """Renyi divergences (orders,) of one step; they add up over steps, chosen adaptively or not."""
    if sigma == 0:
        return np.full(len(accountant_of("rdp").orders), np.inf)
    return np.asarray(accountant_of("rdp").compose(event([(sample_rate, sigma, 1)])).rdp, dtype=np.float64)


def divergences(phases: Sequence[PhaseSpec], accountant: str = "rdp") -> Divergences:
    """Summed Renyi divergences (orders,) of a schedule; infinite where the accountant takes no such order."""
    orders = np.asarray(accountant_of("rdp").orders)
    total = np.zeros(len(orders))
    for q, sigma, steps in phases:
        if steps:
            total = total + steps * rdp_of_step(q, sigma)
    return np.where(orders % 1 == 0, total, np.inf) if accountant == WHOLE else total


def rdp_epsilon(total: Divergences, delta: float, order: float | None = None) -> float:
    """Epsilon of summed divergences; at one fixed order, as a filter must (Feldman and Zrnic 2021)."""
    if not np.isfinite(total).any():
        return float("inf")
    orders = np.asarray(accountant_of("rdp").orders)
    at = slice(None) if order is None else orders == order
    return max(0.0, float(library().rdp.compute_epsilon(orders[at], total[at], delta)[0]))


def worst_epsilon(
    schedules: Sequence[Sequence[PhaseSpec]], delta: float, accountant: str, order: float | None = None
) -> float:
    """The largest epsilon of alternative schedules; with ``order``, by Renyi divergence at that order alone."""
    if order is None:
        return max(epsilon(phases, delta, accountant) for phases in schedules)
    return max(rdp_epsilon(divergences(phases), delta, order) for phases in schedules)


def tightest(schedules: Sequence[Sequence[PhaseSpec]], delta: float, accountant: str) -> str:
    """Which accountant `worst_epsilon` is by, "pld" or "rdp"."""
    return max(_bound(phases, delta, accountant) for phases in schedules)[1]


def rdp_reading(
    schedules: Sequence[Sequence[PhaseSpec]], delta: float, order: float | None, accountant: str = "rdp"
) -> float:
    """The largest epsilon of alternative schedules by Renyi divergence, at one order or the best; quick to ask for."""
    return max(rdp_epsilon(divergences(phases, accountant), delta, order) for phases in schedules)


def whole_orders() -> list[float]:
    """The whole Renyi orders from 2 that are looked at."""
    return [float(order) for order in accountant_of("rdp").orders if order >= 2 and order == int(order)]


def best_order(total: Divergences, delta: float) -> float:
    """The order at which summed divergences give the least epsilon."""
    return float(library().rdp.compute_epsilon(accountant_of("rdp").orders, total, delta)[1])


def version() -> str:
    """What computes the bounds."""
    return f"dp-accounting {metadata.version('dp-accounting')}"


@cache
def library() -> Any:
    """dp-accounting, imported when first needed: it takes a second, and is an extra."""
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError as error:
        raise ConfigError("privacy: needs dp-accounting and opacus; pip install 'fedbatch[dp]'") from error
    # Renyi orders whose series does not converge are left out, which is safe and happens at every large q.
    logging.getLogger("absl").addFilter(lambda record: "failed to converge" not in record.getMessage())
    return dp_accounting


def accountant_of(name: str) -> Any:
    """The library's accountant, "pld" or "rdp"."""
    return library().pld.PLDAccountant() if name == "pld" else library().rdp.RdpAccountant()


def event(phases: Sequence[PhaseSpec]) -> Any:
    """The library's event of a schedule."""
    dp = library()
    steps = [
        dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(sigma)), int(steps))
        for q, sigma, steps in phases
    ]
    return dp.ComposedDpEvent(steps)


def check(phases: Sequence[PhaseSpec], delta: float, accountant: str) -> None:
    """Refuse arguments that are out of range.

    Raises:
        ValueError: one is.
    """
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant must be one of {', '.join(ACCOUNTANTS)} (got {accountant!r})")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1) (got {delta})")
    for q, sigma, steps in phases:
        if not (0 <= q <= 1 and sigma >= 0 and steps >= 0 and int(steps) == steps):
            raise ValueError(
                f"a phase is (q in [0, 1], noise_multiplier >= 0, whole number of steps >= 0) (got {(q, sigma, steps)})"
            )
