"""From ``_target_`` mappings to objects: the one place that calls Hydra's instantiate."""

import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from fedbatch.config.annotations import fits, in_words
from fedbatch.core.errors import ConfigError

STEPS = ("update|start", "update|step", "update|finish")
"""Client work takes local steps, or makes its update by itself."""
PROTOCOLS = {
    "dataset": (),
    "partitioner": ("sizes", "lookup", "__len__"),
    "model": (),
    "loss": ("__call__",),
    "task": (
        *("rule", "scores", "score", "class_axis", "fitted", "targets", "loss", "output_shape"),
        *("trial", "sums", "bounds", "columns", "facts"),
    ),
    "client_work": ("is_gradient", "draw", "num_examples", "smallest_batch", "num_steps", *STEPS),
    "controller": ("adaptive", "phases", "start", "next"),
    "server_optimizer": ("step", "param_groups", "state_dict", "load_state_dict"),
    "learning_rate": ("batch_factor", "blend", "schedule_factor"),
    "time_model": ("round_seconds",),
    "privacy": ("unit", "clip_norm", "noise_shares"),
    "metrics": ("columns",),
    "temperature": ("is_private",),
    "augment": ("__call__",),
    "averaging": ("weight",),
    "aggregator": ("__call__",),
    "compression": ("on_model", "is_unbiased", "keeps_length", "encode", "decode", "aggregated", "num_bytes"),
    "stage": ("is_unbiased", "encode", "decode", "length", "fields", "worst_error"),
    "availability": ("is_there", "next_seconds"),
    "sampler": ("__call__", "is_unbiased"),
    "asynchronous": ("at_work", "max_staleness", "staleness"),
    "staleness": ("__call__",),
    "faults": ("struck",),
    "runtime": ("__call__",),
    "tracker": ("following",),
    "active": ("selector",),
    "selector": ("__call__",),
}
"""What a part must have to be used as one, with a bar between names of which one is enough; see the protocol of each in
its package."""


def build(field: str, node: Mapping[str, Any], *arguments: Any, **more: Any) -> Any:
    """Call the target of ``node`` with its own arguments and the given ones.

    Raises:
        ConfigError: the target cannot be found, refuses its arguments, or gives something else than ``field`` needs;
            names ``field``.
    """
    check_target(field, node)
    check_types(field, node)
    try:
        target: Callable[..., Any] = instantiate(dict(node), _partial_=True, _convert_="all")
        built = target(*arguments, **more)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{field}: {str(cause).splitlines()[0]}") from error
    except ConfigError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # whatever a part of one's own raises is about its arguments
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, ValueError | TypeError | OSError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{node['_target_']} fails with {type(error).__name__}: {text} ({place.filename}:{place.lineno})"
        raise ConfigError(text if text.startswith(field) else f"{field}: {text}") from error
    require(field, built, f"{field}: what {node['_target_']} gives")
    return built


def require(field: str, built: Any, where: str) -> None:
    """Refuse a part, built from its own field or inside of another part, that cannot be used as one.

    Args:
        field: a key of `PROTOCOLS`.
        built: the part.
        where: the part in words, for the message.

    Raises:
        ConfigError: saying what the part lacks.
    """
    needed = PROTOCOLS.get(field, ())
    if missing := [names for names in needed if not any(hasattr(built, name) for name in names.split("|"))]:
        lacks = ", ".join(missing).replace("|", " or ")
        raise ConfigError(f"{where} is a {type(built).__name__}, which has no {lacks}; see how conf/{field} does it")


def check_target(field: str, node: Mapping[str, Any]) -> None:
    """Refuse a part without a target, or with one that cannot be imported, here and in nested nodes.

    Raises:
        ConfigError: saying what was looked for and where.
    """
    for name, value in node.items():
        if isinstance(value, Mapping) and "_target_" in value:
            check_target(f"{field}.{name}", value)
    target = node.get("_target_")
    if not isinstance(target, str) or not target:
        raise ConfigError(f"{field} has no _target_; choose one with {field}=..., see fedbatch --help")
    try:
        found = get_object(target)
    except Exception as error:
        raise ConfigError(f"{field}._target_={target} cannot be imported: {_reason(target, error)}") from error
    if not callable(found):
        raise ConfigError(f"{field}._target_={target} is a {type(found).__name__}; name a function or a class in it")


def _reason(target: str, error: Exception) -> str:
    """Why a target cannot be imported: not found, and where it was looked for; or what its file raises."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    module = target.split(".")[0]
    if isinstance(deepest, SyntaxError):
        return f"{deepest.filename}, line {deepest.lineno}: {deepest.msg}"
    if importlib.util.find_spec(module) is None:
        places = ", ".join(dict.fromkeys(path or os.getcwd() for path in sys.path if os.path.isdir(path or ".")))
        own = [path for path in places.split(", ") if "site-packages" not in path and "lib/python" not in path]
        return f"there is no module {module!r} in {', '.join(own)} or among what is installed"
    text = " ".join(str(deepest).split())
    missing = re.search(r"No module named '([^']+)'", text)
    if isinstance(deepest, ModuleNotFoundError) and missing and not target.startswith(missing.group(1)):
        return f"{module} needs {missing.group(1)}, which is not installed"
    if isinstance(deepest, ModuleNotFoundError | AttributeError) or "Error loading" in text:
        return f"{target.rpartition('.')[0]} has no {target.rpartition('.')[2]}"
    return f"{type(deepest).__name__}: {text}"


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
            raise ConfigError(f"{field}.{name} must be {in_words(hints[name].annotation)} (got {value!r})")
