"""What sets a run of a sweep apart from the others: a file in its folder, by which a table groups runs."""

import json
from collections.abc import Mapping
from pathlib import Path

from fedbatch.core.visible import visible

FILE = "sweep.json"


def write_choices(folder: Path, choices: Mapping[str, str]) -> None:
    """Write the choices of a run, its overrides by key, to its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(dict(choices), indent=1) + "\n")


def read_choices(folder: Path) -> dict[str, str]:
    """The choices of a run; none where it was no run of a sweep."""
    try:
        found = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def in_line(own: Mapping[str, str]) -> str:
    """Choices as on a command line."""
    return visible(" ".join(f"{key}={value}" for key, value in own.items()))
