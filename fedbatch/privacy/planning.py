"""A plan before a private run: what each batch and number of rounds needs in noise for one target epsilon.

The noise of the mean, ``sigma C / B``, is what training feels. It falls with the batch B until the sample rate is so
large that sampling amplifies no more, near ``N sqrt(epsilon / T)`` (McKenna et al. 2025), and is flat from there on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.accounting import WHOLE, PhaseSpec, rough_noise
from fedbatch.privacy.calibrate import remembered
from fedbatch.privacy.terms import SamplingPlan

TIMES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the configured rounds, for which the plan is made."""
GAIN = 0.9
"""A doubling of the batch that leaves more than this of the noise of the mean is not worth it."""


@dataclass(frozen=True)
class Question:
    """What is to be planned; nothing of it depends on data but the public sizes.

    Attributes:
        terms: mechanism, sizes of clients, and the configured phase as ``terms.first``.
        target_epsilon: > 0.
        delta: in (0, 1).
        rounds: configured.
        size: d, coordinates of an update.
        bytes_one_way: what a client sends, and receives, in a round.
        examples: that a client computes in a round of a phase, expected.
        moves_cohort: whether cohorts of other sizes can be had.
        steps: releases that a client makes in a round of a phase.
        has_squares: whether a phase's release has the sum of squared lengths beside the update.
        charged: rounds, of so many with such a cohort, for which the account that pays most is charged.
        besides: releases after the last round, with noise relative to the rounds' own.
        other_phases: whether the run has others than the first.
    """

    terms: SamplingPlan
    target_epsilon: float
    delta: float
    rounds: int
    size: int
    bytes_one_way: int
    examples: Callable[[Phase], float]
    moves_cohort: bool
    steps: Callable[[Phase], int]
    has_squares: Callable[[Phase], bool]
    charged: Callable[[int, int], int]
    besides: tuple[PhaseSpec, ...] = ()
    other_phases: bool = False


@dataclass(frozen=True)
class Row:
    """One batch for one number of rounds.

    Attributes:
        cohort_size: clients of a round, expected.
        client_batch_size: examples of a client and step; None for all that it has.
        batch: expected units (clients or examples) of a release.
        rounds: T.
        sample_rate: q of each unit.
        noise_multiplier: accounted noise on the sum, in clip norms, that meets the target; up to a percent too high.
        mean_noise: standard deviation of the noise on each coordinate of the mean, ``sigma C / B`` with the noise of
            all that take part; in the unit of the clip norm.
        examples: of all clients and rounds, expected.
        bytes_down, bytes_up: of all clients and rounds.
    """

    cohort_size: int
    client_batch_size: int | None
    batch: float
    rounds: int
    sample_rate: float
    noise_multiplier: float
    mean_noise: float
    examples: float
    bytes_down: float
    bytes_up: float

    def has_batch_of(self, other: "Row | Phase") -> bool:
        """Whether the other has as many clients, and as many examples of each."""
        mine, others = (self.cohort_size, self.client_batch_size), (other.cohort_size, other.client_batch_size)
        return mine == others

    def sampling_noise(self, spread: float, size: int) -> float:
        """As ``mean_noise``, of sampling: for units whose contributions differ by ``spread`` from their mean (RMS)."""
        return spread / math.sqrt(self.batch * size)


def rows_of(question: Question) -> list[Row]:
    """The whole grid, by rounds and then by batch; what the mechanism cannot do is left out."""
    rows, start = list[Row](), 1.0
    for times in TIMES:
        rounds = max(1, round(times * question.rounds))
        if any(row.rounds == rounds for row in rows):
            continue
        for phase in ladder(question):
            try:
                rows.append(price(question, phase, rounds, start))
            except ConfigError:  # noise that cannot be split among the coordinates
                continue
            start = rows[-1].noise_multiplier  # neighbours are alike
    return rows


def ladder(question: Question) -> list[Phase]:
    """Batches that double, from a sixteenth of the configured one up to everything.

    At client level the cohort grows; at example level the batch of each client, and then the cohort.
    """
    terms = question.terms
    first, everyone = terms.first, len(terms.sizes)
    cohorts = [c for c in doubling(first.cohort_size, everyone) if c >= terms.mechanism.fewest_clients]
    if not terms.mechanism.clips_examples:
        return [replace(first, cohort_size=c) for c in cohorts] if question.moves_cohort else [first]
    each = float(terms.sizes.mean())
    batches = doubling(min(first.client_batch_size or math.ceil(each), math.ceil(each)), math.ceil(each))
    phases = [replace(first, client_batch_size=b if b < each else None) for b in batches]
    larger = [c for c in cohorts if c > first.cohort_size] if question.moves_cohort else []
    return phases + [replace(phases[-1], cohort_size=c) for c in larger]


def doubling(configured: int, most: int) -> list[int]:
    """From a sixteenth of a number by doubling up to ``most``, both included.

    >>> doubling(8, 50)
    [1, 2, 4, 8, 16, 32, 50]
    """
    found = {max(1, round(configured * 2.0**power)) for power in range(-4, math.ceil(math.log2(most / configured)) + 1)}
    return sorted({n for n in found if n < most} | {most})


def price(question: Question, phase: Phase, rounds: int, start: float = 1.0) -> Row:
    """What one batch needs.

    Raises:
        ConfigError: the mechanism cannot split so much noise among the coordinates of its release.
    """
    terms = question.terms
    q, batch = terms.sample_rate(phase), terms.batch(phase)
    count = question.charged(phase.cohort_size, rounds) * question.steps(phase)
    phases: list[PhaseSpec] = [(q, 1.0, count), *question.besides]
    target, delta = question.target_epsilon, question.delta
    by = WHOLE if terms.mechanism.lattice else "pld"
    sigma = remembered(("rough", target, delta, phases, by), lambda: rough_noise(target, delta, phases, start, by))
    update = terms.mechanism.update_noise(sigma, question.has_squares(phase), terms.units_of_release(phase), terms.size)
    shares = terms.mechanism.noise_shares(phase.cohort_size)
    sent = float(phase.cohort_size) * rounds * question.bytes_one_way
    return Row(
        cohort_size=phase.cohort_size,
        client_batch_size=phase.client_batch_size,
        batch=batch,
        rounds=rounds,
        sample_rate=q,
        noise_multiplier=sigma,
        mean_noise=update * terms.mechanism.clip_norm * math.sqrt(shares) / batch,
        examples=phase.cohort_size * question.examples(phase) * rounds,
        bytes_down=sent,
        bytes_up=sent,
    )


def knee(question: Question, rounds: int) -> float:
    """The batch ``N sqrt(epsilon / T)`` at which amplification by sampling ends, in theory; at most N.

    N units are eligible in a round, and T releases are charged.
    """
    terms, phase = question.terms, question.terms.first
    steps = question.charged(phase.cohort_size, rounds) * question.steps(phase)
    eligible = terms.batch(phase) / terms.sample_rate(phase)
    return eligible * min(1.0, math.sqrt(question.target_epsilon / steps))


def measured_knee(rows: Sequence[Row]) -> Row:
    """The first of ``rows``, by batch, beyond which a doubling leaves more than `GAIN` of the noise; else the last."""
    for row, larger in pairwise(rows):
        gained = math.log(larger.mean_noise / row.mean_noise) / math.log(larger.batch / row.batch)
        if gained > math.log2(GAIN):
            return row
    return rows[-1]


def balanced(rows: Sequence[Row], spread: float, size: int) -> Row | None:
    """The first of ``rows``, by batch, whose privacy noise is not above its sampling noise; None if all are above."""
    return next((row for row in rows if row.mean_noise <= row.sampling_noise(spread, size)), None)
