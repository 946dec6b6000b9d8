"""The run's compression of updates, refused where it would be wrong or would not be told."""

import logging
from collections.abc import Collection, Iterable
from typing import Any

from fedbatch.clients.job import ClientWork
from fedbatch.compression import Compression
from fedbatch.config.build import build, require
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel

log = logging.getLogger("fedbatch")


def compression_of(config: RunConfig, model: FlatModel, works: Collection[ClientWork], adaptive: bool) -> Compression:
    """The compression of the config, for the model; ``adaptive`` controllers decide by what is measured.

    Raises:
        ConfigError: it does not go with this run's privacy, aggregator, measurements, faults, model or client work.
    """
    for wrong, message in _refusals(config):
        if wrong:
            raise ConfigError(message)
    compression: Any = build("compression", config.compression)
    for name, stage in getattr(compression, "stages", {}).items():
        require("stage", stage, f"compression: what stage {name} gives")
    try:
        made: Compression = compression.on_model(model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    kept = [getattr(work, "own", {}) for work in works]
    if made.error_feedback and any(own != kept[0] for own in kept):
        raise ConfigError(
            "compression.error_feedback: two phases have client work whose clients keep different vectors; give all "
            "phases the same, or set error_feedback=false"
        )
    if not made.is_unbiased:
        log.warning("%s", _in_words(made, adaptive))
    return made


def _in_words(compression: Compression, adaptive: bool) -> str:
    biased = [name for name, stage in compression.stages.items() if not stage.is_unbiased]
    why = f"stage {biased[0]} is biased" if biased else "error feedback makes single rounds biased"
    if not compression.keeps_length:
        return f"compression: {why} and keeps no lengths, so that the noise scale is not measured"
    deciding = ", by which the controller decides" if adaptive else ""
    return f"compression: {why}, and so is the noise scale{deciding}; compression_variance is a squared error"


def _refusals(config: RunConfig) -> Iterable[tuple[object, str]]:
    yield (
        config.privacy,
        "compression: a private run sends clipped and noised sums, and compression before the noise is not covered by "
        "its guarantee; use compression=none or privacy=none",
    )
    yield (
        config.aggregator,
        "compression: decoded updates are added up one after the other, and a robust rule needs them all; use "
        "aggregator=mean (majority vote: compression=sign compression.stages.sign.majority=true), or compression=none",
    )
    yield (
        config.noise_scale.cosine,
        "noise_scale.cosine: its sum of unit updates is as large as what compression saves; set it to false",
    )
    yield (
        config.noise_scale.groups,
        "noise_scale.groups: the noise of compression would count as noise of gradients; set it to 0, or "
        "compression=none",
    )
    yield (
        config.faults.get("adversaries"),
        "faults.adversaries: attacks are made of updates that are not compressed; set it to 0, or compression=none",
    )
