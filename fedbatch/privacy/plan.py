"""A mechanism made ready for a run: terms, calibrated noise and keys, fixed before the first round."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbatch.clients.clip import Clip
from fedbatch.controllers.phase import Controller, Observation, Phase
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.metrics.temperature import HALVINGS
from fedbatch.privacy.accounting import PhaseSpec, rdp_reading, worst_epsilon
from fedbatch.privacy.banded import INDEPENDENT, Coefficients, coefficients
from fedbatch.privacy.calibrate import Calibration, Schedules, calibrate
from fedbatch.privacy.lattice import Grid
from fedbatch.privacy.ledger import AGAIN, Ledger, LedgerEntry
from fedbatch.privacy.mechanism import SQUARES_NOISE, Mechanism
from fedbatch.privacy.noise_scale import ReleaseNoise
from fedbatch.privacy.randomness import Floats, Randomness
from fedbatch.privacy.terms import SamplingPlan

Cohort = Callable[[Phase, int], Ints | None]
"""Clients that a round of a phase charges; None where all are charged alike."""
Steps = Callable[[Phase], int]
"""Releases that a client makes in a round of a phase."""
Besides = Sequence[tuple[float, int]]
"""Releases beside the rounds' own in which everyone takes part: relative noise, and how many."""


@dataclass(frozen=True)
class PrivacyPlan:
    """What both ends of a private run know before it starts.

    Attributes:
        terms: sample rates and batches.
        delta: of the guarantee.
        calibration: noise and cost.
        randomness: keyed draws.
        steps: releases that a client makes in a round of a phase: 1, or its local steps at example level.
        has_squares: whether a phase's release has the sum of squared lengths as an extra coordinate.
        relative_temperature_noise: noise multiplier of the temperature's releases over that of the first phase;
            None without a temperature.
        strategy: how noise is correlated over rounds; a resumed run keeps the one that it began with.
    """

    terms: SamplingPlan
    delta: float
    calibration: Calibration
    randomness: Randomness
    steps: Steps
    has_squares: Callable[[Phase], bool]
    relative_temperature_noise: float | None = None
    strategy: Coefficients = INDEPENDENT

    @property
    def mechanism(self) -> Mechanism:
        """The mechanism."""
        return self.terms.mechanism

    def in_run(self, nonce: str) -> "PrivacyPlan":
        """The plan with the draws of the run that has this nonce."""
        if not nonce:
            return self
        return replace(self, randomness=replace(self.randomness, run=f"{self.randomness.run}/{nonce}"))

    def clip(self, clip_norm: float) -> Clip:
        """How contributions are clipped."""
        return Clip(clip_norm, self.mechanism.clipping == "per_layer")

    def noise_multiplier(self, phase: Phase) -> float:
        """Accounted noise multiplier of a phase's release."""
        return self.calibration.first_noise * self.terms.relative_noise(phase)

    def update_noise(self, phase: Phase) -> float:
        """Noise multiplier of the update within a phase's release."""
        accounted = self.noise_multiplier(phase)
        units = self.terms.units_of_release(phase)
        return self.mechanism.update_noise(accounted, self.has_squares(phase), units, self.terms.size)

    def grid(self, phase: Phase, clip_norm: float) -> Grid | None:
        """What the integers of a phase's release stand for; None where numbers, or no noise, are released."""
        lattice, accounted = self.mechanism.lattice, self.noise_multiplier(phase)
        if lattice is None or not accounted:
            return None
        whole, steps = self.release_noise(phase, clip_norm, 1.0, 0), lattice.deviation(accounted, self.terms.size)
        return Grid(whole.update / steps, self.extra_deviations(phase, whole) / steps, steps, lattice.bits)

    def release_noise(self, phase: Phase, clip_norm: float, shares: float, size: int) -> ReleaseNoise:
        """The noise on a sum of (size,) coordinates with the variance of ``shares`` noise multipliers."""
        deviation = self.update_noise(phase) * shares**0.5 * self.terms.noise_factor(phase)
        unit = clip_norm if deviation else 1.0  # without noise the clip norm may be infinite
        whole = self.mechanism.whole_noise(self.noise_multiplier(phase), self.terms.size)
        count = self.mechanism.noise_of_count(whole, self.terms.units_of_release(phase)) * shares**0.5
        count *= self.terms.noise_factor(phase)
        return ReleaseNoise(clip_norm, deviation * unit, SQUARES_NOISE * deviation * unit**2, size, count)

    def extra_deviations(self, phase: Phase, noise: ReleaseNoise) -> Floats:
        """Standard deviations (e,) of the noise on the extra coordinates of a phase's release, in their order."""
        squares = [noise.squares] if self.has_squares(phase) else []
        count = [noise.count] if self.follows_quantile else []
        return np.array(squares + count, dtype=np.float64)

    def num_extras(self, phase: Phase) -> int:
        """e, number of extra coordinates of a phase's release."""
        return int(self.has_squares(phase)) + int(self.follows_quantile)

    @property
    def follows_quantile(self) -> bool:
        """Whether the clip norm follows a quantile; the last extra coordinate is then the count within it."""
        return self.mechanism.follows_quantile

    def release(self, phase: Phase, round_: int, params: str, clients: Ints, how: str = "") -> LedgerEntry:
        """The accounted event of one round, on which ``clients`` are charged if the server sees who takes part."""
        charged = self.terms.charged(round_, clients)
        q, sigma = self.terms.accounted_rate(phase), self.noise_multiplier(phase)
        return LedgerEntry(round_, params, q, sigma, self.steps(phase), charged, how=how)

    def charges(self, ledger: Ledger, due: LedgerEntry) -> list[LedgerEntry]:
        """What a ledger is charged for an attempt: itself, and if the round was released before, what `banded` says."""
        if self.terms.bands == 1 or due.question or due in ledger.releases or not ledger.done_before(due):
            return [due]
        near = (r.noise_multiplier for r in ledger.releases if due.round - self.terms.bands < r.round <= due.round)
        noise = min(due.noise_multiplier, *near)
        return [
            replace(due, params=f"{due.params}/{AGAIN}", sample_rate=1.0, noise_multiplier=noise, clients=None),
            due,
        ]

    @property
    def temperature_noise(self) -> float:
        """Accounted noise multiplier of each of the temperature's releases."""
        return self.calibration.first_noise * (self.relative_temperature_noise or 0.0)

    @property
    def accuracy_noise(self) -> float:
        """Accounted noise multiplier of each accuracy on what clients hold out; 0 where none is released."""
        return self.calibration.first_noise * (self.mechanism.accuracy_noise or 0.0)

    def question_noise(self, statistic: str) -> float:
        """Accounted noise multiplier of a question about what clients hold out."""
        return self.accuracy_noise if statistic == "correct" else self.temperature_noise

    def temperature_release(self, round_: int, params: str, how: str = "") -> LedgerEntry:
        """The accounted event of one of the temperature's releases: everyone takes part."""
        return LedgerEntry(round_, params, 1.0, self.temperature_noise, 1, how=how)

    def accuracy_release(self, round_: int, params: str, how: str = "") -> LedgerEntry:
        """The accounted event of an accuracy on what clients hold out: everyone takes part."""
        return LedgerEntry(round_, params, 1.0, self.accuracy_noise, 1, how=how)

    def epsilon(self, ledger: Ledger) -> float:
        """What a ledger has spent, by the accountant of the guarantee."""
        order, accountant = self.calibration.order, self.calibration.accountant
        return worst_epsilon(ledger.schedules(), self.delta, accountant, order)

    def rdp_reading(self, ledger: Ledger) -> float:
        """What a ledger has spent, read quickly by Renyi divergence; at the filter's order where there is one."""
        calibration = self.calibration
        return rdp_reading(ledger.schedules(), self.delta, calibration.order, calibration.accountant)

    def allows(self, ledger: Ledger) -> bool:
        """Whether a ledger is within ``target_epsilon``, whatever the controller.

        What was planned was priced beforehand, so only what a crash or a resume has added takes the accountant's time.
        """
        target, spent = self.mechanism.target_epsilon, ledger.schedules()
        if target is None or (self.calibration.order is None and is_part(spent, self.calibration.schedules)):
            return True
        slack = 1e-6 if self.calibration.order is None else 0.0  # as the calibration of a given noise allows
        return self.epsilon(ledger) <= target * (1 + slack)


def default_delta(units: int) -> float:
    """1e-5, or a tenth of one over the number of units if that is less.

    A tenth alone would be 1e-3 for a hundred clients: with that probability the guarantee may fail altogether.
    """
    return min(1e-5, 0.1 / units)


def delta_of(terms: SamplingPlan) -> float:
    """The delta of the guarantee."""
    return terms.mechanism.delta or default_delta(terms.units)


def make_plan(
    terms: SamplingPlan,
    controller: Controller,
    rounds: int,
    adaptive: bool,
    cohort: Cohort,
    steps: Steps,
    has_squares: Callable[[Phase], bool],
    randomness: Randomness,
    relative_temperature_noise: float | None = None,
    evaluations: int = 0,
) -> PrivacyPlan:
    """Calibrate a mechanism for a run of ``rounds`` rounds, and what is asked of held-out examples beside them.

    ``evaluations`` accuracies are released where the mechanism has noise for them, and a temperature after the rounds.

    Raises:
        ConfigError: see `calibrate`; a temperature after a schedule that may spend the whole budget.
    """
    if adaptive and relative_temperature_noise is not None:
        raise ConfigError(
            "temperature=private: a controller (or target_value) that decides by what was released may leave no budget "
            "for it; use controller=fixed or schedule"
        )
    delta, besides = delta_of(terms), besides_of(terms.mechanism, relative_temperature_noise, evaluations)
    if adaptive:
        alone = [[phase] * rounds for phase in controller.phases]
        schedules: Schedules = [s for phases in alone for s in schedules_of(terms, phases, cohort, steps, besides)]
    else:
        schedules = schedules_of(terms, fixed_phases(controller, rounds), cohort, steps, besides)
    calibration = calibrate(terms.mechanism, schedules, delta, adaptive)
    strategy = coefficients(terms.bands, rounds)
    plan = PrivacyPlan(terms, delta, calibration, randomness, steps, has_squares, relative_temperature_noise, strategy)
    for phase in controller.phases:
        plan.update_noise(phase)  # refuses what cannot be split among the coordinates
    return plan


def besides_of(mechanism: Mechanism, relative_temperature_noise: float | None, evaluations: int) -> Besides:
    """What is released beside the rounds: the halvings of a temperature, and accuracies."""
    halvings = [] if relative_temperature_noise is None else [(relative_temperature_noise, HALVINGS)]
    accuracies = [] if mechanism.accuracy_noise is None else [(mechanism.accuracy_noise, evaluations)]
    return [*halvings, *accuracies]


def fixed_phases(controller: Controller, rounds: int) -> Iterator[Phase]:
    """The phase of each round, for a controller that looks at nothing but the round."""
    by_name = {phase.name: phase for phase in controller.phases}
    state = controller.start()
    for round_ in range(rounds):
        phase = by_name[state.phase]
        yield phase if state.cohort_size is None else replace(phase, cohort_size=state.cohort_size)
        state = controller.next(state, Observation(round_, 0.0, None, "examples", 0))


def is_part(spent: Schedules, planned: Schedules) -> bool:
    """Whether all of ``spent`` is within one of the planned schedules, phase by phase."""
    return all(any(_is_within(one, other) for other in planned) for one in spent)


def _is_within(spent: Sequence[PhaseSpec], planned: Sequence[PhaseSpec]) -> bool:
    steps = {(q, sigma): count for q, sigma, count in planned}
    return all(count <= steps.get((q, sigma), 0) for q, sigma, count in spent)


def schedules_of(
    terms: SamplingPlan, phases: Iterable[Phase], cohort: Cohort, steps: Steps, besides: Besides = ()
) -> Schedules:
    """What the accounts spend over these rounds and beside them; noise is relative to the first phase."""
    ledger = Ledger(terms.accounts)
    for round_, phase in enumerate(phases):
        clients = cohort(phase, round_)
        charged = terms.charged(round_, clients)
        release = LedgerEntry(
            round_, "", terms.accounted_rate(phase), terms.relative_noise(phase), steps(phase), charged
        )
        ledger = ledger.charge(release)
    for number, (noise, count) in enumerate(besides, start=1):
        ledger = ledger.charge(LedgerEntry(-number, "", 1.0, noise, count))
    return ledger.schedules()
