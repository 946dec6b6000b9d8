"""Before the first round: what a schedule costs, or the noise at which it costs the target."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedbatch.core import cache
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import accounting
from fedbatch.privacy.accounting import PhaseSpec
from fedbatch.privacy.mechanism import Mechanism

Schedules = Sequence[Sequence[PhaseSpec]]
"""Alternatives ``(q, relative noise, steps)``, of which the costliest counts."""


@dataclass(frozen=True)
class Calibration:
    """The noise of a run and what it buys.

    Attributes:
        first_noise: accounted noise multiplier of the first phase.
        epsilon: cost of the whole schedule; the budget where the schedule is adaptive.
        accountant: "pld", "rdp", or "auto", the smaller of the two; by Renyi divergence for an adaptive schedule, and
            at whole orders for noise on a lattice.
        order: the Renyi order at which an adaptive schedule is filtered, fixed here; None for a fixed schedule.
        schedules: what each account of a fixed schedule is to spend; empty for an adaptive one.
    """

    first_noise: float
    epsilon: float
    accountant: str
    order: float | None
    schedules: Schedules = ()


def calibrate(mechanism: Mechanism, schedules: Schedules, delta: float, adaptive: bool) -> Calibration:
    """Price a fixed schedule, or set the filter of an adaptive one.

    Args:
        mechanism: gives noise, target and accountant.
        schedules: what each account will spend; for an adaptive run, what it would spend in each phase alone, of
            which the costliest bounds every mixture.
        delta: of the guarantee.
        adaptive: whether phases, or their number, depend on what was released.

    Raises:
        ConfigError: a budget that the given noise passes, or an adaptive schedule without a budget or under PLD.
    """
    target, sigma, accountant = mechanism.target_epsilon, mechanism.noise_multiplier, mechanism.accountant
    if adaptive and sigma != 0:
        if accountant == "pld":
            raise ConfigError(
                "privacy.accountant=pld needs phases that are fixed beforehand, but the controller (or target_value) "
                "decides by what was released. Use privacy.accountant=auto, or controller=fixed or schedule"
            )
        if target is None:
            raise ConfigError(
                "privacy.target_epsilon is needed when the controller (or target_value) decides by what was released; "
                "only a budget fixed beforehand makes an adaptive schedule accountable"
            )
    accountant = accounting.WHOLE if mechanism.lattice else "rdp" if adaptive else accountant
    if sigma is None:
        assert target is not None
        sigma = max(_remembered_noise(target, delta, schedule, accountant) for schedule in schedules)
    scaled = [[(q, sigma * relative, steps) for q, relative, steps in phases] for phases in schedules]
    if not adaptive:
        epsilon = accounting.worst_epsilon(scaled, delta, accountant)
        if target is not None and epsilon > target * (1 + 1e-6):
            raise ConfigError(
                f"privacy: noise_multiplier={sigma:g} costs epsilon {epsilon:.4g}, above target_epsilon={target:g}; "
                "set noise_multiplier=null to calibrate it, or target_epsilon=null"
            )
        return Calibration(sigma, epsilon, accountant, None, scaled)
    if sigma == 0:
        return Calibration(0.0, float("inf"), accountant, None)
    assert target is not None
    totals = [accounting.divergences(phases, accountant) for phases in scaled]
    costliest = max(totals, key=lambda total: accounting.rdp_epsilon(total, delta))
    return Calibration(sigma, target, accountant, order_that_lasts_longest(costliest, target, delta))


def order_that_lasts_longest(total: accounting.Divergences, target: float, delta: float) -> float:
    """The order at which the budget would pay for the largest multiple of these divergences."""
    low, high = 1e-12, 1.0
    while accounting.rdp_epsilon(high * total, delta) < target:
        low, high = high, 2 * high
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if accounting.rdp_epsilon(middle * total, delta) <= target else (low, middle)
    return accounting.best_order(low * total, delta)


def _remembered_noise(target: float, delta: float, phases: Sequence[PhaseSpec], accountant: str) -> float:
    question = (target, delta, sorted(phases), accountant)
    return remembered(question, lambda: accounting.noise_multiplier(target, delta, phases, accountant))


def remembered(question: object, noise: Callable[[], float]) -> float:
    """A noise multiplier, which takes seconds to find, remembered on this machine by what was asked."""
    name = hashlib.blake2b(repr((question, accounting.version())).encode(), digest_size=16).hexdigest()
    path = cache.folder() / f"noise-{name}"
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        found = noise()
    cache.write(path, repr(found).encode())
    return found
