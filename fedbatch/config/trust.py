"""Whose code a config may name. A config runs code, so one that somebody else wrote names only what its reader trusts.

The public parts of fedbatch and the classes of ``torch.nn`` and ``torch.optim`` are trusted everywhere. All else is
named by whoever builds the parts: the owner of a node in node-config, the reader of a run folder by ``--trust``.
"""

import inspect
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from hydra.utils import get_object

from fedbatch.config.compose import groups
from fedbatch.config.names import ALIASES
from fedbatch.core.errors import ConfigError

EVERYTHING = "*"
"""What a node trusts that is part of the researcher's own process."""
PACKAGES = (
    *(
        "active",
        "aggregation",
        "asynchronous",
        "augment",
        "availability",
        "averaging",
        "batch",
        "clients",
        "compression",
        "controllers",
        "data",
        "losses",
        "metrics",
        "models",
        "optim",
    ),
    *("privacy", "report", "runtime", "samplers", "tasks", "trackers"),
)
"""Packages of fedbatch whose public names are parts. Names at the top, as `fedbatch.run`, are not."""
GIVEN = "fedbatch.config.given.part"
OF_TORCH = re.compile(r"torch\.(nn|optim)\.[A-Z]\w*")
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
DEEPEST = 50
"""Levels of a config; ours have six."""
ON_A_NODE = """the owner of this node may allow it with --node-config 'trust="{0}"'"""
OF_A_FOLDER = "if you trust its author, add --trust {0} (in Python trust=['{0}'])"


def refuse_strangers(values: Any, trusted: Iterable[str], remedy: str) -> None:
    """Refuse a config that names code of strangers, before anything of it is imported, resolved or built.

    Args:
        values: a config as JSON or YAML has it.
        trusted: names of modules, classes or functions; all that lies in them is trusted. `EVERYTHING` trusts all.
        remedy: what to do, with {0} for the module that would have to be trusted.

    Raises:
        ConfigError: naming the key.
    """
    prefixes = tuple(trusted)
    if EVERYTHING in prefixes:
        return
    for key, value in leaves(values):
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{key}: {value[:80]!r} is filled in where it is read; give the value itself")
        if key.rpartition(".")[2] != "_target_" or is_trusted(value, prefixes):
            continue
        if not isinstance(value, str) or not NAME.fullmatch(value) or "__" in value:
            raise ConfigError(f"{key}={str(value)[:80]!r} is not the name of a class or function")
        module = value.rpartition(".")[0]
        raise ConfigError(f"{key}={value[:80]} is none of fedbatch's or torch's parts; {remedy.format(module[:80])}")


def is_trusted(target: Any, prefixes: Iterable[str]) -> bool:
    """Whether a target may be imported; a name within a prefix is imported to see where it leads."""
    if not isinstance(target, str) or not NAME.fullmatch(target) or "__" in target:
        return False
    return is_part(target) or any(_within(target, prefix) and _stays_in(target, prefix) for prefix in prefixes)


def is_part(target: str) -> bool:
    """Whether a name is a public part of fedbatch, now or once, or a class of torch that makes a module or optimizer.

    >>> [is_part(f"fedbatch.{name}") for name in ("losses.Focal", "losses.focal.Focal", "run", "data.source.load")]
    [True, True, False, False]
    """
    now = ALIASES.get(target, target)
    if now in ALIASES.values() or now == GIVEN or OF_TORCH.fullmatch(now):
        return True
    first, _, rest = now.partition(".")
    package, _, name = rest.partition(".")
    return first == "fedbatch" and package in PACKAGES and name in getattr(_package(package), "__all__", ())


def refuse_overrides(overrides: str) -> None:
    """Refuse overrides from a stranger that reach beyond the config: into Hydra, the environment or other files.

    Raises:
        ConfigError: naming the override.
    """
    for word in shlex.split(overrides):
        key = word.lstrip("+~").split("=")[0].split("@")[0]
        is_path = ".." in word and key in groups()
        if key.startswith(("hydra", "-")) or "${" in word or is_path:
            raise ConfigError(f"overrides: a node does not take {word[:80]!r}; give the value itself")


def trusted_by(node_config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the owner of a node trusts: ``trust`` in node-config, or FEDBATCH_TRUST; names with commas between.

    >>> trusted_by({"trust": "my_models, our.losses"})
    ('my_models', 'our.losses')
    """
    text = str(node_config.get("trust", os.environ.get("FEDBATCH_TRUST", "")))
    return tuple(filter(None, re.split(r"[\s,]+", text)))


def leaves(values: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config, those in lists too. A key counts as a value besides.

    Raises:
        ConfigError: it is nested deeper than any config.
    """
    waiting = [("config", "", values, 0)]
    while waiting:
        key, dotted, value, depth = waiting.pop()
        if depth > DEEPEST:
            raise ConfigError(f"{key[:80]} is nested deeper than {DEEPEST} levels")
        pairs: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            pairs = value.items()
            yield from ((dotted or "config", str(name)) for name in value)
        elif isinstance(value, list | tuple):
            pairs = enumerate(value)
        if not isinstance(value, Mapping | list | tuple) or key == "_target_":
            yield dotted, value
        waiting += [(str(name), f"{dotted}.{name}".lstrip("."), each, depth + 1) for name, each in pairs]


def named(values: Any) -> list[str]:
    """Every target of a config."""
    return [value for key, value in leaves(values) if key.rpartition(".")[2] == "_target_" and isinstance(value, str)]


def _package(name: str) -> ModuleType | None:
    try:
        return import_module(f"fedbatch.{name}")
    except ModuleNotFoundError:
        return None


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _stays_in(target: str, prefix: str) -> bool:
    """Whether a name in a trusted module is defined there, and is not what that module has imported from elsewhere."""
    try:
        found = get_object(target)
    except Exception:  # whatever somebody's module raises; `build` tells it
        return True
    top = prefix.split(".")[0]
    at: Any = import_module(top)
    for name in target.split(".")[1:]:
        at = getattr(at, name)
        if isinstance(at, ModuleType) and not _within(at.__name__, top):
            return False
    if inspect.isclass(found) or inspect.isroutine(found):
        return _within(str(found.__module__), top)
    return True
