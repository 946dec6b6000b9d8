"""The run's way to step without waiting for a whole cohort, refused where it would be wrong."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fedbatch.asynchronous import FedBuff
from fedbatch.config.build import build, require
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError

if TYPE_CHECKING:  # they need torch, and a config is checked without it
    from fedbatch.clients.job import ClientWork
    from fedbatch.compression import Compression

TRIED = 1000
"""Numbers of steps for which factors are looked at before the run."""


def asynchronous_of(config: RunConfig) -> FedBuff | None:
    """The way of the config; None where rounds are synchronous.

    Raises:
        ConfigError: it does not go with the run's other parts.
    """
    if not config.asynchronous:
        return None
    for wrong, message in _refusals(config):
        if wrong:
            raise ConfigError(message)
    built: FedBuff = build("asynchronous", config.asynchronous)
    require("staleness", built.staleness, "asynchronous.staleness")
    steps = np.arange(min(built.max_staleness, TRIED) + 1)
    factors = np.asarray(built.staleness(steps))
    if factors.shape != steps.shape or not (np.isfinite(factors) & (factors > 0)).all():
        name = type(built.staleness).__name__
        raise ConfigError(
            f"asynchronous.staleness: {name} must give a positive number for each update, of 0 to "
            f"{built.max_staleness} steps"
        )
    return built


def check_buffers(
    config: RunConfig,
    fedbuff: FedBuff,
    phases: Iterable[Phase],
    largest: int | None,
    works: Iterable["ClientWork"],
    compression: "Compression | None",
) -> None:
    """Refuse phases, client work and compression for which stale updates would be wrong.

    Args:
        config: of the run.
        fedbuff: how it steps.
        phases: of the controller.
        largest: its ``max_cohort_size``, if it has one.
        works: client work of the run and of its phases.
        compression: of updates.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    phases = list(phases)
    buffer = max([phase.cohort_size for phase in phases], default=1) if largest is None else largest
    if (most := fedbuff.at_work(buffer)) > config.population:
        raise ConfigError(
            f"asynchronous.concurrency: {most} clients at work with a cohort_size of {buffer} are more than the "
            f"population ({config.population}); lower it to {config.population / buffer:.4g} at most"
        )
    for work in works:
        if any(getattr(work, kind, {}) for kind in ("extras", "shared", "own")):
            raise ConfigError(
                f"client_work: {type(work).__name__} sends or keeps vectors that belong to one round, and a buffer "
                "has updates of several; use fedsgd or local_sgd, or asynchronous=none"
            )
    for phase in phases:
        if phase.client_work is not None:
            raise ConfigError(
                f"controller.{phase.name}.client_work: after a change of phase a buffer would add up two kinds of "
                "update; set it to null, or asynchronous=none"
            )
    if compression is not None and compression.error_feedback:
        raise ConfigError(
            "compression.error_feedback: what clients keep belongs to one round, and a buffer has updates of several; "
            "set it to false, or asynchronous=none"
        )


def _refusals(config: RunConfig) -> Iterable[tuple[object, str]]:
    yield (
        config.privacy,
        "asynchronous: the accountant counts rounds of clients drawn anew, and a buffer has who happens to be done; "
        "use asynchronous=none or privacy=none",
    )
    yield (
        config.aggregator,
        "asynchronous: stale updates count less, and an aggregator of single updates counts each once; use "
        "aggregator=mean, or asynchronous=none",
    )
    yield (
        config.sampler or config.sampling not in ("auto", "uniform"),
        "asynchronous: clients at work are not drawn again, so that chances of a sampler would not hold; use "
        "sampler=plain and sampling=uniform, or asynchronous=none",
    )
    yield (
        config.availability or config.deadline_seconds is not None or config.over_selection > 1,
        "asynchronous: who is done first counts, and nobody is asked anew before; use availability=always, "
        "deadline_seconds=null and over_selection=1, or asynchronous=none",
    )
    yield (
        config.active,
        "asynchronous: queries for labels begin a new training set while clients are at work on the old one; use "
        "active=none, or asynchronous=none",
    )
    yield (
        config.faults,
        "faults: nodes are struck among those that are asked at once, and a buffer asks a few at a time, so that "
        "shares would not hold; use faults=none, or asynchronous=none",
    )
    yield (
        config.noise_scale.groups,
        "noise_scale.groups: groups of a buffer would be as stale as it happens; set it to 0, or asynchronous=none",
    )
