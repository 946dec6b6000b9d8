"""The page: template, style, scripts and data in one file."""

import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fedbatch
from fedbatch.core.files import write_atomically
from fedbatch.core.visible import visible
from fedbatch.report.read import read_runs
from fedbatch.results.load import run_folders

SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        "draw",
        "state",
        "charts",
        "compare",
        "target",
        "settings",
        "critical",
        "runs",
        "study",
        "live",
        "page",
    )
)


def write_report(paths: Sequence[Path], target: Path | None = None, trust: Sequence[str] = ()) -> Path:
    """Write one page on all runs at or below ``paths``.

    Args:
        paths: run folders, or folders of them.
        target: the file; else ``report.html`` in the one path, or in the working folder where there are several.
        trust: modules whose code the runs' time models may name.

    Raises:
        FileNotFoundError: a path without a run.
    """
    target = target or (paths[0] if len(paths) == 1 else Path()) / "report.html"
    write_atomically(target, page_of(paths, target.parent, trust).encode())
    return target


def page_of(paths: Sequence[Path], top: Path, trust: Sequence[str] = (), again_after: int | None = None) -> str:
    """The page on all runs at or below ``paths``, for a file in the folder ``top``.

    Args:
        paths: as in `write_report`.
        trust: as there.
        top: what links are relative to.
        again_after: seconds after which a browser asks for it again, while a run is under way; None for a file.

    Raises:
        FileNotFoundError: a path without a run.
    """
    folders = sorted({folder for path in paths for folder in run_folders(path)}, key=_natural)
    values = read_runs(folders, top, trust)
    values["title"] = paths[0].resolve().name if len(paths) == 1 else f"{len(folders)} runs"
    values["again_after"] = again_after
    return page(values)


def page(values: dict[str, Any]) -> str:
    """The HTML of `fedbatch.report.read.read_runs`."""
    parts = {
        "STYLE": _file("page.css"),
        "PLOTLY": plotly_js(),
        "SCRIPT": "\n".join(map(_file, SCRIPTS)),
        # Inside a script element only "</" and "<!--" mean anything to HTML.
        "DATA": json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "VERSION": fedbatch.__version__,
    }
    # In one pass: a name in the data may look like a place in the template.
    return re.sub(rf"@({'|'.join(parts)})@", lambda place: parts[place[1]], _file("page.html"))


def plotly_js() -> str:
    """Plotly's script as its package has it; the package itself need not be imported."""
    spec = find_spec("plotly")
    assert spec is not None and spec.origin is not None, "plotly is a dependency"
    return (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_text()


def announcement(target: Path) -> str:
    """What the command line says of a page that was written."""
    return f"report: {visible(target)} ({os.path.getsize(target) / 1e6:.1f} MB, opens in any browser)"


def _natural(path: Path) -> list[str | int]:
    """Run 10 comes after run 9.

    >>> sorted([Path("a/10"), Path("a/9")], key=_natural)[0].name
    '9'
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _file(name: str) -> str:
    return resources.files("fedbatch.report").joinpath(name).read_text()
