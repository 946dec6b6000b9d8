"""Auditing in one run: what guesses about canaries say of a mechanism that claims to be private.

Each of m canaries is there by a coin of its own. An attacker guesses, from what was released, for some of them whether
they are there. How many guesses can be right is bounded by the trade-off function f of a mechanism, which for each
rate of false alarms gives the least rate of misses. Sources: Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846) for
(epsilon, delta); Mahloujifar, Melis and Chaudhuri 2024 (arXiv 2410.22235) for f.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
TradeOff = Callable[[float], float]
SHARES = (0.5, 0.25, 0.1)
"""Of canaries that are guessed, the surest first; all are tried, each at its part of the significance. To guess them
all would refute less."""


@dataclass(frozen=True)
class Guesses:
    """How an attacker did.

    Attributes:
        canaries: m, all of them.
        made: guesses, for each of `SHARES`.
        right: of these.
    """

    canaries: int
    made: tuple[int, ...]
    right: tuple[int, ...]


def guess(scores: Floats, present: npt.NDArray[np.bool_]) -> Guesses:
    """Guess "there" where a score (m,) is above 0, the surest first, and count what is right."""
    surest = np.argsort(-np.abs(scores), kind="stable")
    correct = ((scores > 0) == present)[surest]
    made = tuple(max(1, round(share * len(scores))) for share in SHARES)
    return Guesses(len(scores), made, tuple(int(correct[:count].sum()) for count in made))


def trade_off(epsilons: Floats, deltas: Floats) -> TradeOff:
    """The trade-off function of a mechanism that is ``(epsilons[k], deltas[k])``-private for every k.

    It is the largest of the two lines that each pair allows (Dong et al. 2022, proposition 2.12), so with finitely
    many pairs it lies below the mechanism's own, which is the safe side.
    """
    slopes = np.exp(epsilons)

    def least_misses(alarms: float) -> float:
        steep, flat = 1 - deltas - slopes * alarms, (1 - deltas - alarms) / slopes
        return max(0.0, float(steep.max()), float(flat.max()))

    return least_misses


def refutes(guesses: Guesses, of_mechanism: TradeOff, significance: float) -> bool:
    """Whether so many right guesses are too unlikely for a mechanism with this trade-off function."""
    each = significance / len(guesses.made)
    return any(
        _too_many(of_mechanism, guesses.canaries, made, right, each)
        for made, right in zip(guesses.made, guesses.right, strict=True)
    )


def _too_many(of_mechanism: TradeOff, canaries: int, made: int, right: int, significance: float) -> bool:
    """Mahloujifar et al. 2024, algorithm for m canaries with capped guesses.

    If as many right guesses had probability ``significance``, then no fewer than so much probability, summed over the
    numbers of right guesses below, would have to lie elsewhere. More than there is refutes the mechanism.
    """
    wrong_mass, right_mass = significance * (made - right) / canaries, significance * right / canaries
    for count in range(right - 1, -1, -1):
        next_mass = max(wrong_mass, of_mechanism(1 - min(1.0, right_mass)))
        right_mass += count / (made - count) * (next_mass - wrong_mass)
        wrong_mass = next_mass
    return right_mass + wrong_mass > made / canaries


def epsilon_without_shape(guesses: Guesses, delta: float, significance: float) -> float:
    """Lower bound of epsilon at ``delta``, whatever the mechanism (Steinke et al. 2023, theorem 5.2)."""
    each, best = significance / len(guesses.made), 0.0
    for made, right in zip(guesses.made, guesses.right, strict=True):
        low, high = 0.0, 20.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            unlikely = _probability(guesses.canaries, made, right, middle, delta) < each
            low, high = (middle, high) if unlikely else (low, middle)
        best = max(best, low)
    return best


def _probability(canaries: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """Upper bound of the probability of at least ``right`` right guesses under (epsilon, delta)-privacy."""
    from scipy.stats import binom  # comes with dp-accounting

    chance = 1 / (1 + np.exp(-epsilon))
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), made, chance))
    slope = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return float(binom.sf(right - 1, made, chance)) + 2 * canaries * delta * slope


def log_likelihood_ratio(values: Floats, sample_rate: float, deviation: float, steps: int) -> Floats:
    """How much likelier values (m,) are if the canary is there: log of a ratio, 0 where both are alike.

    A value is the sum of ``steps`` releases, to each of which a canary that is there adds 1 with probability
    ``sample_rate``, with Gaussian noise of ``deviation`` on each release.
    """
    from scipy.special import logsumexp
    from scipy.stats import binom

    if deviation == 0:
        return np.where(values > 0.5, np.inf, np.log1p(-min(sample_rate, 1 - 1e-12)) * steps)
    times = np.arange(steps + 1)
    weights = binom.logpmf(times, steps, sample_rate)
    exponents = (times * values[:, None] - times**2 / 2) / (steps * deviation**2)
    return np.asarray(logsumexp(weights + exponents, axis=1), dtype=np.float64)
