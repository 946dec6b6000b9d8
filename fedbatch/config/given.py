"""Objects that a Python caller gives in the place of YAML: data set, model, loss, or any other part.

A config is text, so it can only name them. A class or function that can be imported is named like any other
``_target_``. All else is kept in this process under the name of its field, and `part` fetches it from there.
"""

import copy
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from hydra.utils import get_object

from fedbatch.core.errors import ConfigError

FACTORIES = ("dataset", "partitioner", "model", "server_optimizer")
"""Fields whose functions are called to make the part. A function given for another field is the part."""

PARTS: dict[str, Callable[..., Any]] = {}


def part(*arguments: Any, field: str, made_of: str, code: str, **more: Any) -> Any:
    """The part that this process was given for ``field``.

    Raises:
        ConfigError: it was given to another process.
    """
    if field not in PARTS:
        raise ConfigError(
            f"{field}: {made_of} was given to another Python process; give it again with "
            f"fedbatch.run(resume=..., {field}=...), or put it into a module and name it by {field}._target_"
        )
    return PARTS[field](*arguments, **more)


def sorted_out(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Objects by dotted key, and all values with a node of the config in the place of each object."""
    objects: dict[str, Any] = {}

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if is_plain(value):
            return value
        if isinstance(value, Mapping):
            return {name: plain(f"{key}.{name}", each) for name, each in value.items()}
        objects[key] = value
        return node(key, value)

    nodes = {key: plain(key, value) for key, value in values.items()}
    return objects, nodes


def node(field: str, value: Any) -> dict[str, Any]:
    """What stands in the config for a part that was given; see `part`."""
    function = value.func if isinstance(value, functools.partial) and not value.args else value
    settings = value.keywords if isinstance(value, functools.partial) else {}
    if is_factory(field, value) and (name := importable(function)) and all(map(is_plain, settings.values())):
        return {"_target_": name, **settings}
    kind = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', repr(kind))}"
    return {"_target_": "fedbatch.config.given.part", "field": field, "made_of": name, "code": source_digest(kind)}


def is_plain(value: Any) -> bool:
    """Whether a value can stand in a config as it is."""
    return isinstance(value, str | int | float | bool | list | tuple | NoneType)


@contextmanager
def kept(values: Mapping[str, Any]) -> Iterator[None]:
    """Keep what was given for these fields inside the block."""
    PARTS.clear()
    PARTS.update({field: maker(field, value) for field, value in values.items()})
    try:
        yield
    finally:
        PARTS.clear()


def maker(field: str, value: Any) -> Callable[..., Any]:
    """A function that gives the part each time it is asked for."""
    if not is_factory(field, value):
        return lambda *_, **__: copy.deepcopy(value) if field == "model" else value  # server and nodes train one each
    return lambda *arguments, **more: value(*arguments, **accepted(value, more))


def accepted(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments whose names a function has, all of them if that cannot be told.

    >>> accepted(lambda num_classes: None, {"num_classes": 10, "input_shape": (4,)})
    {'num_classes': 10}
    """
    try:
        named = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return dict(arguments)
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in named.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in named}


def is_factory(field: str, value: Any) -> bool:
    """Whether a value is called to make the part: a class, a partial, or a function where functions make parts."""
    if isinstance(value, type | functools.partial):
        return True
    return field in FACTORIES and inspect.isroutine(value)


def importable(value: Any) -> str:
    """The name by which any process can import a value; empty without one."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not module or module == "__main__" or "<" in name or not name:
        return ""
    try:
        return f"{module}.{name}" if get_object(f"{module}.{name}") is value else ""
    except Exception:  # whatever importing somebody's module raises
        return ""


def source_digest(kind: Any) -> str:
    """Hash of the source of a class or function, so that a run is not resumed with other code; empty if unknown."""
    try:
        return hashlib.blake2b(inspect.getsource(kind).encode(), digest_size=8).hexdigest()
    except (OSError, TypeError):
        return ""
