"""What can be refused only with data and model at hand, each in one line with the remedy."""

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from fedbatch.batch.phases import Phase
from fedbatch.clients.choose import unsupported
from fedbatch.clients.job import ClientWork
from fedbatch.config import RunConfig
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.errors import ConfigError
from fedbatch.losses import small_batches
from fedbatch.models.attention import attention_layers
from fedbatch.models.flat import FlatModel, Loss

log = logging.getLogger("fedbatch")


def check_model(config: RunConfig, model: FlatModel) -> None:
    """Refuse measurements that the model does not allow.

    Raises:
        ConfigError: naming the field.
    """
    if config.noise_scale.halves and model.has_batch_norm:
        raise ConfigError(
            "noise_scale.halves: batch norm makes half batches differ from the whole; use model.norm=group"
        )
    if config.record_attention and not attention_layers(model.module):
        raise ConfigError("record_attention: the model has no attention; use model=gpt or bert, or set it to false")


def check_batches(
    phases: Iterable[Phase], works: Mapping[str, ClientWork], default: ClientWork, partition: HoldoutPartition
) -> None:
    """A gradient on b examples needs b examples; local steps take short batches as they come.

    Raises:
        ConfigError: naming the phase.
    """
    smallest = int(_some_sizes(partition).min())
    for phase in phases:
        needed = phase.client_batch_size if works.get(phase.name, default).is_gradient else None
        if needed and needed > smallest:
            raise ConfigError(
                f"client_batch_size ({needed}, phase {phase.name}) is larger than the smallest client's {smallest} "
                "examples; lower it, use fewer clients, or client_batch_size=null for all"
            )


def warn_of_small_batches(loss: Loss, phases: Iterable[Phase], partition: HoldoutPartition, num_classes: int) -> None:
    """Say what chance makes of a loss over the smallest batch of any phase; one of no size is the mean client's."""
    mean = int(_some_sizes(partition).mean())
    smallest = max(1, min(phase.client_batch_size or mean for phase in phases))
    if note := small_batches.warning(loss, smallest, num_classes):
        log.warning("%s", note)


def check_executor(
    config: RunConfig, works: Iterable[ClientWork], loss: Loss, model: FlatModel, input_shape: tuple[int, ...]
) -> None:
    """Refuse an executor that cannot do the work.

    Raises:
        ConfigError: with the executor's reason.
    """
    for work in works:
        if reason := unsupported(config.executor, work, loss, model, input_shape):
            raise ConfigError(f"executor={config.executor} cannot run this: {reason}; use executor=auto")


def _some_sizes(partition: HoldoutPartition) -> np.ndarray:
    return partition.sizes(np.arange(min(len(partition), 100_000)))
