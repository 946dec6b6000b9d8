"""What can be built of a run without torch, and with it a quick check of the whole config."""

from functools import lru_cache
from typing import Any

from fedbatch.active.learning import ActiveLearning
from fedbatch.config.build import build, require
from fedbatch.config.checks import check_phases
from fedbatch.config.schema import RunConfig, from_json
from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.setup.asynchronous import asynchronous_of
from fedbatch.setup.cohorts import availability_of, sampler_of
from fedbatch.setup.learning import read_dataset


@lru_cache(maxsize=1)
def data(config_json: str) -> tuple[Dataset, HoldoutPartition]:
    """Data set and partition of a run. Needs no torch, so it can refuse quickly.

    Raises:
        ConfigError: data that is not there, or cannot be split so.
    """
    config = from_json(config_json)
    dataset = read_dataset(config.dataset, config.task)
    partition = HoldoutPartition(build("partitioner", config.partitioner, dataset), config.client_holdout)
    if len(partition) != config.population:
        raise ConfigError(
            f"population ({config.population}) differs from the {len(partition)} clients of this partition; "
            f"set population={len(partition)}"
        )
    return dataset, partition


@lru_cache(maxsize=1)
def controller(config_json: str) -> Any:
    """The phase controller of a run, checked against it."""
    config = from_json(config_json)
    built = build("controller", config.controller)
    check_phases(config, built.phases, getattr(built, "max_cohort_size", None))
    if getattr(built, "needs_groups", False) and not config.noise_scale.groups:
        raise ConfigError(
            f"controller: {type(built).__name__} decides by rounds that are asked group by group; set "
            "noise_scale.groups=8 noise_scale.every=5"
        )
    for phase in built.phases:
        if phase.client_work is not None:
            require("client_work", phase.client_work, f"controller: client_work of phase {phase.name!r}")
    return built


def active_learning(config: RunConfig) -> ActiveLearning | None:
    """The plan of a run for labels, or none."""
    if not config.active:
        return None
    built: ActiveLearning = build("active", config.active)
    require("selector", built.selector, "active.selector")
    return built


def trackers(config: RunConfig) -> dict[str, Any]:
    """The trackers of a run by name.

    Raises:
        ConfigError: one whose package is not there, with the command that installs it.
    """
    found = {name: build(f"tracker.{name}", node) for name, node in config.tracker.items()}
    for name, tracker in found.items():
        require("tracker", tracker, f"tracker.{name}")
    return found


def validate(config: RunConfig) -> None:
    """Refuse a run that cannot work, before anything heavy is imported.

    Raises:
        ConfigError: one line that names the field and the remedy.
    """
    text = config.to_json()
    controller(text)
    build("learning_rate", config.learning_rate)
    if config.averaging:
        build("averaging", config.averaging)
    active_learning(config)
    build("time_model", config.time_model)
    availability_of(config)
    sampler_of(config)
    asynchronous_of(config)
    trackers(config)
    data(text)
