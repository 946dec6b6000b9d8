"""The audit itself: run with canaries, guess from releases which of them are there, and hold that against the claim."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fedbatch.api import configured, quiet
from fedbatch.auditing import canaries
from fedbatch.auditing.planted import CANARIES, planted
from fedbatch.auditing.readings import attacked
from fedbatch.config import given
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import accounting, one_run
from fedbatch.privacy.accounting import PhaseSpec
from fedbatch.privacy.one_run import Guesses
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.setup import task, validate

EPSILONS = np.concatenate([[0.0], np.geomspace(1e-3, 300, 300)])
"""Where the claim's trade-off is held against the guesses."""
SIGNIFICANCE = 0.05
CONTROL = 10.0
"""How much weaker the noise of the control is."""
LEAST_NOISE, MOST_NOISE = 1 / 64, 16.0
"""Factors on the noise between which a bound is looked for."""


@dataclass(frozen=True)
class Audit:
    """What an attacker found.

    Attributes:
        claim: epsilon of the audited run's own statement, or of its budget.
        delta: of the claim.
        schedule: what the costliest account spent, ``(q, noise_multiplier, steps)`` each.
        unit: "example" or "client".
        guesses: made and right.
        bound: lower bound of epsilon at ``delta``, 95 % confidence, for mechanisms of the claimed kind.
        bound_without_shape: the same whatever the mechanism; weaker.
        refuted: whether the guesses are too good for the claim.
    """

    claim: float
    delta: float
    schedule: tuple[PhaseSpec, ...]
    unit: str
    guesses: Guesses
    bound: float
    bound_without_shape: float
    refuted: bool


@dataclass(frozen=True)
class Found:
    """An audit and its control.

    Attributes:
        audit: of the run as it is.
        control: with a tenth of the noise, held against the same claim; None if it was not asked for.
    """

    audit: Audit
    control: Audit | None


def audit(*overrides: str, control: bool = True, number: int = CANARIES, **values: Any) -> Found:
    """Attack the run that ``fedbatch OVERRIDES`` would be.

    Args:
        overrides: as on the command line, e.g. ``"privacy=client_central"``, ``"rounds=50"``.
        control: attack it with a tenth of the noise too, which shows whether the audit would have found a fault.
        number: of canaries, about.
        values: as in `fedbatch.run`.

    Raises:
        ConfigError: the run is not private, or nothing is claimed of it.
    """
    objects, plain = given.sorted_out(values)
    with quiet(True), given.kept(objects), silent():
        config = configured(overrides, plain)
        if not config.privacy:
            raise ConfigError("audit: the run has no mechanism; set privacy, e.g. privacy=client_central")
        validate.validate(config)
        plan = task.load(config.to_json()).privacy
        assert plan is not None
        found = attack(config, plan, number, 1.0)
        return Found(found, attack(config, plan, number, CONTROL, found) if control else None)


def attack(config: RunConfig, plan: PrivacyPlan, number: int, weaker: float, claimed: Audit | None = None) -> Audit:
    """One audit, with noise that is ``weaker`` by a factor and held against the claim of another audit."""
    with TemporaryDirectory() as folder:
        made = planted(config, plan, folder, number)
        if weaker != 1:
            made = weakened(made, plan, weaker)
        loaded = task.load(made.to_json())
        assert loaded.privacy is not None
        scores, ledger = attacked(loaded)
    there = canaries.present(len(scores), config.seed)
    guesses = one_run.guess(scores, there)
    if claimed is None:
        epsilon = (
            loaded.privacy.epsilon(ledger) if loaded.privacy.calibration.order is None else plan.calibration.epsilon
        )
        schedule = max(ledger.schedules(), key=lambda each: accounting.epsilon(each, plan.delta))
        claimed = Audit(epsilon, plan.delta, tuple(schedule), plan.mechanism.unit, guesses, 0.0, 0.0, False)
    return replace(
        claimed,
        guesses=guesses,
        bound=lower_bound(guesses, claimed.schedule, claimed.delta),
        bound_without_shape=one_run.epsilon_without_shape(guesses, claimed.delta, SIGNIFICANCE),
        refuted=refuted(guesses, claimed.schedule, 1.0),
    )


def weakened(made: RunConfig, plan: PrivacyPlan, weaker: float) -> RunConfig:
    """The config of an audit with weaker noise, and without the budget that it would spend in a round or two.

    Without a budget phases must be fixed, so the first one lasts.
    """
    noise = made.privacy["noise_multiplier"] / weaker
    privacy = made.privacy | {"noise_multiplier": noise, "target_epsilon": None}
    if plan.calibration.order is None:
        return replace(made, privacy=privacy)
    first = {"cohort_size": made.cohort_size, "client_batch_size": made.client_batch_size}
    phase = {"_target_": "fedbatch.controllers.Phase", "name": "fixed", **first}
    return replace(made, privacy=privacy, controller={"_target_": "fedbatch.controllers.Fixed", "phase": phase})


def refuted(guesses: Guesses, schedule: tuple[PhaseSpec, ...], factor: float) -> bool:
    """Whether the guesses are too good for this schedule with ``factor`` times its noise."""
    scaled = [(q, factor * sigma, steps) for q, sigma, steps in schedule]
    of_mechanism = one_run.trade_off(EPSILONS, accounting.deltas(scaled, EPSILONS))
    return one_run.refutes(guesses, of_mechanism, SIGNIFICANCE)


def lower_bound(guesses: Guesses, schedule: tuple[PhaseSpec, ...], delta: float) -> float:
    """Epsilon of this schedule with as much noise as is only just not refuted."""
    low, high = math.log(LEAST_NOISE), math.log(MOST_NOISE)
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(guesses, schedule, math.exp(middle)) else (middle, high)
    if high == math.log(MOST_NOISE):
        return 0.0
    return accounting.epsilon([(q, math.exp(high) * sigma, steps) for q, sigma, steps in schedule], delta)


@contextmanager
def silent() -> Iterator[None]:
    """Say nothing of the runs inside the block, which are not the user's."""
    log = logging.getLogger("fedbatch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
        task.forget()
