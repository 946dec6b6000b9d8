"""From ``_target_`` mappings to objects: the one place that calls Hydra's instantiate."""

import inspect
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from fedbatch.active.learning import ActiveLearning
from fedbatch.config import RunConfig, check_phases, from_json
from fedbatch.data.check_dataset import checked
from fedbatch.data.dataset import Dataset
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.errors import ConfigError


def build(field: str, node: Mapping[str, Any], *arguments: Any, **more: Any) -> Any:
    """Call the target of ``node`` with its own arguments and the given ones.

    Raises:
        ConfigError: the target cannot be found or refuses its arguments; names ``field``.
    """
    check_types(field, node)
    try:
        target: Callable[..., Any] = instantiate(dict(node), _partial_=True, _convert_="all")
        return target(*arguments, **more)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{field}: {str(cause).splitlines()[0]}") from error
    except (ValueError, TypeError, OSError) as error:
        text = str(error).splitlines()[0]
        raise ConfigError(text if text.startswith(field) else f"{field}: {text}") from error


def check_types(field: str, node: Mapping[str, Any]) -> None:
    """Compare values with the annotations of the target that will get them, here and in nested nodes.

    Raises:
        ConfigError: a word for a number, a fraction for a whole number, not-a-number.
    """
    for name, value in node.items():
        if isinstance(value, Mapping):
            check_types(f"{field}.{name}", value)
    try:
        hints = inspect.signature(get_object(node["_target_"]), eval_str=True).parameters if "_target_" in node else {}
    except Exception:  # a target that is not there, which `instantiate` says better, or annotations that cannot be read
        return
    for name, value in node.items():
        if name in hints and not fits(value, hints[name].annotation):
            raise ConfigError(
                f"{field}.{name} must be {inspect.formatannotation(hints[name].annotation)} (got {value!r})"
            )


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from YAML may be meant by an annotation; what is not plain is left to the target.

    >>> [fits(value, float | None) for value in (1, 0.5, None, "abc", float("nan"))]
    [True, True, True, False, False]
    """
    kinds, inner = get_origin(hint), get_args(hint)
    if kinds in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if kinds is tuple and Ellipsis not in inner:
        whole = isinstance(value, list | tuple) and len(value) == len(inner)
        return whole and all(map(fits, value, inner))
    if hint in (int, float):
        number = isinstance(value, int | hint) and not isinstance(value, bool)
        return number and value == value
    if hint in (Any, inspect.Parameter.empty) or not isinstance(hint, type):
        return True
    return isinstance(value, hint) if hint in (bool, str, NoneType) else not isinstance(value, str | int | float)


@lru_cache(maxsize=1)
def data(config_json: str) -> tuple[Dataset, HoldoutPartition]:
    """Data set and partition of a run. Needs no torch, so it can refuse quickly.

    Raises:
        ConfigError: data that is not there, or cannot be split so.
    """
    config = from_json(config_json)
    dataset = _dataset(config.dataset)
    partition = HoldoutPartition(build("partitioner", config.partitioner, dataset), config.client_holdout)
    if len(partition) != config.population:
        raise ConfigError(
            f"population ({config.population}) differs from the {len(partition)} clients of this partition; "
            f"set population={len(partition)}"
        )
    return dataset, partition


def _dataset(node: Mapping[str, Any]) -> Dataset:
    """The data set of a target of anybody's, checked; whatever it raises is said in one line with its place."""
    try:
        return checked(build("dataset", node))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"dataset: {node['_target_']} failed, {told} ({place.filename}:{place.lineno})") from error


@lru_cache(maxsize=1)
def controller(config_json: str) -> Any:
    """The phase controller of a run, checked against it."""
    config = from_json(config_json)
    built = build("controller", config.controller)
    check_phases(config, built.phases)
    return built


def active_learning(config: RunConfig) -> ActiveLearning | None:
    """The plan of a run for labels, or none."""
    if not config.active:
        return None
    built: ActiveLearning = build("active", config.active)
    return built


def trackers(config: RunConfig) -> dict[str, Any]:
    """The trackers of a run by name.

    Raises:
        ConfigError: one whose package is not there, with the command that installs it.
    """
    return {name: build(f"tracker.{name}", node) for name, node in config.tracker.items()}


def validate(config: RunConfig) -> None:
    """Refuse a run that cannot work, before anything heavy is imported.

    Raises:
        ConfigError: one line that names the field and the remedy.
    """
    text = config.to_json()
    controller(text)
    build("learning_rate", config.learning_rate)
    active_learning(config)
    build("time_model", config.time_model)
    trackers(config)
    data(text)
