"""The rounds that may be proposed: cohorts and client batches around those of a run."""

import math
from dataclasses import dataclass

from fedbatch.batch.trust import CLIENTS
from fedbatch.results.critical import Critical, Prediction

REACH = 10
"""Doublings of the probe's clients and of their examples, beyond which nothing is proposed."""


@dataclass(frozen=True)
class Way:
    """A round that may be proposed: its clients, the examples of each (None for all that it has), what it needs."""

    cohort_size: int
    client_batch_size: int | None
    needs: Prediction


def ways_of(found: Critical, nominal: int | None, most_each: float) -> tuple[Way, ...]:
    """Rounds by doubling and halving those of the run, and what each needs to the lowest loss of the run.

    Cohorts go from 8 clients, below which norms say little of the noise, to the population, which is one of them.
    Examples of a client are those of the run alone after local steps and where clients take all that they have.

    Args:
        found: what the run says.
        nominal: its ``client_batch_size``; clients with fewer examples give what they have.
        most_each: examples that clients have.
    """
    population, least, own = found.population, min(CLIENTS, found.population), round(found.cohort)
    doubled = (round(own * 2.0**i) for i in range(-REACH, REACH + 1))
    cohorts = {own, *(cohort for cohort in doubled if least <= cohort <= population)}
    if population <= own * 2**REACH:
        cohorts.add(population)
    sizes = [nominal]
    if nominal is not None and not math.isnan(found.drift):
        powers = {max(nominal >> i, 1) for i in range(REACH + 1)} | {nominal << i for i in range(REACH + 1)}
        sizes = [size for size in sorted(powers) if size <= max(nominal, most_each)]

    def way(cohort: int, size: int | None) -> Way:
        each = found.client_batch * (size / nominal if size and nominal else 1.0)
        return Way(cohort, size, found.predict(cohort * each, cohort))

    return tuple(way(cohort, size) for cohort in sorted(cohorts) for size in sizes)
