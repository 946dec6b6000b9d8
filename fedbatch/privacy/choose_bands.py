"""How many bands suit a schedule: correlated noise cancels in sums, but smaller groups have less amplification."""

from collections.abc import Sequence
from dataclasses import replace

from fedbatch.controllers.phase import Phase
from fedbatch.privacy import accounting
from fedbatch.privacy.banded import coefficients, error
from fedbatch.privacy.plan import Besides, Cohort, Steps, schedules_of
from fedbatch.privacy.terms import SamplingPlan

MOST = 64
"""Bands that "auto" takes at most: a run keeps a vector of the model's size for each."""


def candidates(terms: SamplingPlan, phases: Sequence[Phase]) -> list[int]:
    """Powers of two up to the number of rounds and to 1/q, beyond which a group would be smaller than the batch."""
    most = min(MOST, len(phases), *(1 / terms.sample_rate(phase) for phase in set(phases)))
    return [2**k for k in range(MOST.bit_length()) if 2**k <= most * (1 + 1e-9)] or [1]


def predicted_error(
    terms: SamplingPlan,
    phases: Sequence[Phase],
    cohort: Cohort,
    steps: Steps,
    delta: float,
    besides: Besides = (),
) -> float:
    """Root mean square of the noise on sums of updates, in clip norms, at the noise that the target needs.

    Args:
        terms: with the number of bands that is asked about.
        phases: of each round.
        cohort: clients that a round charges.
        steps: releases of a client in a round.
        delta: of the guarantee.
        besides: what is released beside the rounds.

    By Renyi divergence, which takes a fraction of a second; a run's noise is then found by its own accountant.
    """
    target = terms.mechanism.target_epsilon
    assert target is not None  # refused before
    schedules = schedules_of(terms, phases, cohort, steps, besides)
    noise = max(accounting.noise_multiplier(target, delta, schedule, "rdp") for schedule in schedules)
    return noise * error(coefficients(terms.bands, len(phases)), len(phases))


def best_bands(
    terms: SamplingPlan,
    phases: Sequence[Phase],
    cohort: Cohort,
    steps: Steps,
    delta: float,
    besides: Besides = (),
) -> int:
    """The power of two with the least `predicted_error`."""
    choices = [replace(terms, bands=bands) for bands in candidates(terms, phases)]
    return min(choices, key=lambda c: predicted_error(c, phases, cohort, steps, delta, besides)).bands
