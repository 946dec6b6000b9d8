"""Who can be asked, and who is: availability and sampler of a run, refused where they would be wrong."""

import logging
from typing import Any

from fedbatch.availability import Availability
from fedbatch.config.build import build
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.samplers import Sampler

log = logging.getLogger("fedbatch")


def availability_of(config: RunConfig) -> Availability | None:
    """The model of availability; None where all clients are always there."""
    built: Availability | None = build("availability", config.availability) if config.availability else None
    return built


def sampler_of(config: RunConfig) -> Sampler | None:
    """The sampler; None where the word ``sampling`` says who takes part.

    Raises:
        ConfigError: it corrects weights that nobody would look at.
    """
    if not config.sampler:
        return None
    built: Any = build("sampler", config.sampler)
    if getattr(built, "corrects", False) and config.aggregator:
        raise ConfigError(
            f"sampler: {type(built).__name__} corrects the weights of updates, and an aggregator of single updates "
            "counts each once; set aggregator=mean, or sampler.correct=false"
        )
    return built


def tell_of_bias(config: RunConfig, sampler: Sampler | None) -> None:
    """Say once where the mean update is not that of all clients."""
    if sampler is not None and not sampler.is_unbiased:
        log.warning(
            "sampler: %s prefers some clients, so that the mean update and the noise scale are those of the clients it "
            "takes, and not of all",
            type(sampler).__name__,
        )
    if config.deadline_seconds is not None or config.over_selection > 1:
        name = "deadline_seconds" if config.deadline_seconds is not None else "over_selection"
        log.warning("%s: slow clients are left out, so that the mean update is that of fast ones", name)
