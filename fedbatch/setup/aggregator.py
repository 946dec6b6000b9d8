"""The run's rule for single updates, refused where there are none to see."""

from collections.abc import Iterable

from fedbatch.aggregation.robust import Aggregator
from fedbatch.config.build import build
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel


def aggregator_of(config: RunConfig, model: FlatModel, phases: Iterable[Phase]) -> Aggregator:
    """The rule of the config.

    Raises:
        ConfigError: it cannot be used with this run's privacy, measurements, model or cohorts.
    """
    if config.privacy:
        raise ConfigError(
            "aggregator: robust rules look at single updates, which a private run does not show anybody; use "
            "aggregator=mean or privacy=none"
        )
    if config.noise_scale.halves or config.noise_scale.cosine:
        raise ConfigError("noise_scale: halves and cosine are measured with aggregator=mean only; set both to false")
    if model.buffers.numel():
        raise ConfigError("aggregator: running statistics (batch norm) have no robust mean; use model.norm=group")
    aggregator: Aggregator = build("aggregator", config.aggregator)
    smallest = min(phase.cohort_size for phase in phases)
    if (least := getattr(aggregator, "least_clients", 1)) > smallest:
        raise ConfigError(
            f"aggregator: needs {least} clients a round, and the smallest cohort has {smallest}; raise cohort_size or "
            "lower aggregator.adversaries and aggregator.select"
        )
    return aggregator
