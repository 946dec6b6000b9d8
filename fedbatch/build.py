"""From ``_target_`` mappings to objects: the one place that calls Hydra's instantiate."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from fedbatch.config import RunConfig, check_phases, from_json
from fedbatch.data.dataset import Dataset
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.errors import ConfigError


def build(field: str, node: Mapping[str, Any], *arguments: Any, **more: Any) -> Any:
    """Call the target of ``node`` with its own arguments and the given ones.

    Raises:
        ConfigError: the target cannot be found or refuses its arguments; names ``field``.
    """
    try:
        target: Callable[..., Any] = instantiate(dict(node), _partial_=True, _convert_="all")
        return target(*arguments, **more)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{field}: {str(cause).splitlines()[0]}") from error
    except (ValueError, TypeError, OSError) as error:
        text = str(error).splitlines()[0]
        raise ConfigError(text if text.startswith(field) else f"{field}: {text}") from error


@lru_cache(maxsize=1)
def data(config_json: str) -> tuple[Dataset, HoldoutPartition]:
    """Data set and partition of a run. Needs no torch, so it can refuse quickly.

    Raises:
        ConfigError: data that is not there, or cannot be split so.
    """
    config = from_json(config_json)
    dataset = build("dataset", config.dataset)
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
    check_phases(config, built.phases)
    return built


def validate(config: RunConfig) -> None:
    """Refuse a run that cannot work, before anything heavy is imported.

    Raises:
        ConfigError: one line that names the field and the remedy.
    """
    text = config.to_json()
    controller(text)
    build("learning_rate", config.learning_rate)
    build("time_model", config.time_model)
    data(text)
