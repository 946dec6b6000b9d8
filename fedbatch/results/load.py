"""Runs on disk as tables: one row a run, or one row a round.

A run is a folder with a ``config.yaml`` and a ``summary.json``; sweeps and studies are folders of such folders.
"""

import json
import logging
from pathlib import Path
from typing import Any

import polars as pl

from fedbatch.core.errors import ConfigError
from fedbatch.results.folder import config_values, leaves, summary_of
from fedbatch.results.record import FILE, read_rows

log = logging.getLogger("fedbatch")


def run_folders(path: str | Path) -> list[Path]:
    """Every run folder at or below ``path``, sorted by name.

    Raises:
        FileNotFoundError: there is none.
    """
    top = Path(path)
    found = sorted(config.parent for config in top.rglob("config.yaml") if summary_of(config.parent))
    if not found:
        raise FileNotFoundError(f"{top}: no run in it; a run's folder has config.yaml and summary.json")
    return found


def load_runs(path: str | Path) -> pl.DataFrame:
    """One row a run: ``run`` (path below ``path``), what its summary says, and every value of its config.

    Names of config values are those of the command line, e.g. ``model.width``, with ``config.`` before those that the
    summary has too (``rounds`` is done, ``config.rounds`` planned). A value that a run does not have is null. Lists and
    mappings of the summary come as JSON.

    Raises:
        FileNotFoundError: no run at or below ``path``.
    """
    rows = []
    for folder in run_folders(path):
        summary = summary_of(folder)
        plain = {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in summary.items()}
        config = dict(leaves(_config(folder)))
        rows.append(_named(folder, path) | plain | {f"config.{k}" if k in plain else k: v for k, v in config.items()})
    return pl.concat([_frame([row]) for row in rows], how="diagonal_relaxed")


def load_rounds(path: str | Path) -> pl.DataFrame:
    """One row a round of every run, with ``run`` in front; also of runs that are under way or broke off.

    Raises:
        FileNotFoundError: no run at or below ``path``.
    """
    frames = []
    for folder in run_folders(path):
        if rows := read_rows(folder / FILE):
            frames.append(_frame(rows).select(pl.lit(_named(folder, path)["run"]).alias("run"), pl.all()))
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame({"run": []})


def _config(folder: Path) -> dict[str, Any]:
    """Its values; none where the file is damaged, which must not hide the other runs."""
    try:
        return config_values(folder)
    except ConfigError as error:
        log.warning("%s", error)
        return {}


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None)


def _named(folder: Path, path: str | Path) -> dict[str, str]:
    below = folder.relative_to(path)
    return {"run": str(below) if below.parts else folder.name}
