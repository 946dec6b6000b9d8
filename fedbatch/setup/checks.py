"""What can be refused only with data and model at hand, each in one line with the remedy."""

import logging
from collections.abc import Iterable, Mapping

import numpy as np
from torch import nn

from fedbatch.active.learning import ActiveLearning
from fedbatch.clients.job import ClientWork
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.losses import small_batches
from fedbatch.models.attention import attention_layers
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.privacy.mechanism import Mechanism

log = logging.getLogger("fedbatch")

MOST_TRIED = 64
"""Examples of the largest batch on which a model is tried before the run."""


def check_loss(loss: object) -> None:
    """Refuse a loss with parameters of its own: only the model's are sent and trained.

    Raises:
        ConfigError: naming how many there are.
    """
    own = [p for p in loss.parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []
    if own:
        raise ConfigError(
            f"loss: {type(loss).__name__} has {sum(p.numel() for p in own):,} parameters of its own, which would never "
            "be trained; make them part of the model, or freeze them with requires_grad_(False)"
        )


def check_model(config: RunConfig, model: FlatModel) -> None:
    """Refuse measurements that the model does not allow.

    Raises:
        ConfigError: naming the field.
    """
    if config.noise_scale.halves and model.examples_meet:
        raise ConfigError(
            "noise_scale.halves: examples of a batch meet in this model, as batch norm makes them, so half batches "
            "differ from the whole; use model.norm=group"
        )
    if config.record_attention and not attention_layers(model.module):
        raise ConfigError("record_attention: the model has no attention; use model=gpt or bert, or set it to false")


def check_batches(
    small_clients: str,
    phases: Iterable[Phase],
    works: Mapping[str, ClientWork],
    default: ClientWork,
    partition: HoldoutPartition,
) -> None:
    """A gradient on b examples needs a client that has them; with ``small_clients=refuse``, every client.

    Raises:
        ConfigError: naming the phase.
    """
    sizes, refuse = _some_sizes(partition), small_clients == "refuse"
    limit, whose = (int(sizes.min()), "smallest") if refuse else (int(sizes.max()), "largest")
    for phase in phases:
        needed = phase.client_batch_size if works.get(phase.name, default).is_gradient else None
        if needed and needed > limit:
            raise ConfigError(
                f"client_batch_size ({needed}, phase {phase.name}) is larger than the {whose} client's {limit} "
                "examples; lower it, use fewer clients, or client_batch_size=null for all"
                + (", or small_clients=accept" if refuse else "")
            )


def check_works(works: Iterable[ClientWork], aggregator: object | None) -> None:
    """Refuse client work that sends or keeps vectors where nobody could make sense of them.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    kept = []
    for work in works:
        name = f"client_work: {type(work).__name__}"
        if (getattr(work, "extras", {}) or getattr(work, "shared", {})) and not hasattr(work, "aggregate"):
            raise ConfigError(f"{name} declares extras or shared vectors but has no aggregate; see docs/algorithms.md")
        if getattr(work, "extras", {}) and aggregator is not None:
            raise ConfigError(
                f"{name} sends vectors besides updates, and an aggregator of single updates would leave them out; use "
                "aggregator=mean, or client_work=local_sgd"
            )
        if (own := getattr(work, "own", {})) and own not in kept:
            kept.append(own)
    if len(kept) > 1:
        raise ConfigError(
            "controller: two phases have client work whose clients keep different vectors; give all phases the same"
        )


def trial_sizes(
    phases: Iterable[Phase], works: Mapping[str, ClientWork], default: ClientWork, partition: HoldoutPartition
) -> list[int]:
    """Batch sizes on which a model is tried: the smallest of any phase, and one of at least two examples."""
    sizes = _some_sizes(partition)
    sizes = sizes[sizes > 0]
    smallest = MOST_TRIED
    for phase in phases:
        work = works.get(phase.name, default)
        smallest = min(smallest, work.smallest_batch(phase.batch_sizes(sizes), sizes))
    return [smallest, max(2, smallest)]


def warn_of_small_batches(loss: Loss, phases: Iterable[Phase], partition: HoldoutPartition, num_classes: int) -> None:
    """Say what chance makes of a loss over the smallest batch of any phase; one of no size is the mean client's."""
    mean = int(_some_sizes(partition).mean())
    smallest = max(1, min(phase.client_batch_size or mean for phase in phases))
    if note := small_batches.warning(loss, smallest, num_classes):
        log.warning("%s", note)


def _some_sizes(partition: HoldoutPartition) -> np.ndarray:
    return partition.sizes(np.arange(min(len(partition), 100_000)))


def check_active(
    config: RunConfig,
    active: ActiveLearning,
    mechanism: Mechanism | None,
    has_positions: bool,
    pool: int,
    mapped: bool = False,
) -> None:
    """Refuse what cannot be run, or would be claimed and not be true.

    Args:
        config: of the run.
        active: its plan for labels.
        mechanism: of a private run.
        has_positions: whether an example has a label a position.
        pool: examples that can be labelled, over all clients.
        mapped: whether their inputs stay in a file.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    needed = active.seed_labels + active.queries * active.labels_per_query
    for wrong, message in (
        (
            config.rounds <= active.queries,
            f"rounds ({config.rounds}) must be more than active.queries ({active.queries}): every stage needs one",
        ),
        (mapped, "active: a query reads all inputs, which stay in their file here; set active=none"),
        (has_positions, "active: labels of single positions cannot be queried; use a data set with one a row"),
        (
            needed > pool,
            f"active: {needed} labels are wanted of {pool} examples; lower active.labels_per_query",
        ),
        (
            mechanism is not None and mechanism.clips_examples,
            "active: which examples are trained on depends on all of a client's, which example-level privacy does not "
            "cover; use privacy=client_central or privacy=none",
        ),
        (
            mechanism is not None and active.scope != "local_only",
            f"active.scope={active.scope} sends counts, and two_level raw centroids, outside of the privacy guarantee; "
            "use active.scope=local_only or privacy=none",
        ),
    ):
        if wrong:
            raise ConfigError(message)
