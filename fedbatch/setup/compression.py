"""The run's compression of updates, refused where it would be wrong or would not be told."""

import logging
from collections.abc import Collection, Iterable
from typing import Any

from fedbatch.clients.job import ClientWork
from fedbatch.compression import Compression
from fedbatch.compression.chain import NotFiniteError
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
    _try_out(made, model)
    kept = [getattr(work, "own", {}) for work in works]
    if made.error_feedback and any(own != kept[0] for own in kept):
        raise ConfigError(
            "compression.error_feedback: two phases have client work whose clients keep different vectors; give all "
            "phases the same, or set error_feedback=false"
        )
    if not made.is_unbiased:
        log.warning("%s", _in_words(made, adaptive))
    return made


def _try_out(compression: Compression, model: FlatModel) -> None:
    """Stages give what they say, found out on the model's own parameters.

    Raises:
        ConfigError: they do not, or fail.
    """
    vector = model.params
    try:
        payload = compression.encode(vector, 0)
        told = compression.num_bytes(len(vector), vector.dtype)
        if len(payload) == told:
            compression.decode(payload, len(vector), vector.dtype, 0)
    except NotFiniteError:  # which is of these numbers, and not of the stages
        return
    except Exception as error:  # whatever a stage of one's own raises
        text = " ".join(str(error).split())
        raise ConfigError(f"compression: its stages fail on {len(vector):,} numbers: {text}") from error
    if len(payload) != told:
        raise ConfigError(
            f"compression: its stages say that they send {told:,} bytes and give {len(payload):,}; let length and "
            "fields of each be those of what encode gives"
        )


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
