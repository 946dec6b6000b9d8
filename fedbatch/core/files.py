"""Files of a run folder: written whole or not at all, as JSON that every reader takes."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOT_FINITE = "not_finite"
"""Key under which an object says which of its nulls are numbers: {"test_loss": "nan", "noise_scale_high": "inf"}."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, and a run that was killed meanwhile, sees the old or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def to_json(values: Mapping[str, Any], indent: int | None = None) -> str:
    """One object as strict JSON, which has neither NaN nor infinities: they become null and are named beside.

    >>> to_json({"loss": math.nan, "norms": [1.0, -math.inf]})
    '{"loss": null, "norms": [1.0, null], "not_finite": {"loss": "nan", "norms.1": "-inf"}}'
    """
    named: dict[str, str] = {}
    plain = {name: _plain(value, name, named) for name, value in values.items()}
    return json.dumps(plain | ({NOT_FINITE: named} if named else {}), indent=indent, allow_nan=False)


def from_json(text: str | bytes) -> dict[str, Any]:
    """The object that `to_json` wrote, its numbers as they were; also one with the words NaN and Infinity.

    >>> from_json(to_json({"scores": {"ece": math.inf}, "norms": [1.0, math.nan], "clusters": None}))
    {'scores': {'ece': inf}, 'norms': [1.0, nan], 'clusters': None}

    Raises:
        ValueError: not an object in JSON.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"not an object but {type(values).__name__}")
    try:
        for path, word in values.pop(NOT_FINITE, {}).items():
            *way, last = path.split(".")
            place: Any = values
            for step in way:
                place = place[int(step) if isinstance(place, list) else step]
            place[int(last) if isinstance(place, list) else last] = float(word)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{NOT_FINITE} names what is not there") from error
    return values


def _plain(value: Any, path: str, named: dict[str, str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        named[path] = str(float(value))
        return None
    if isinstance(value, Mapping):
        return {name: _plain(each, f"{path}.{name}", named) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}.{i}", named) for i, each in enumerate(value)]
    return value
