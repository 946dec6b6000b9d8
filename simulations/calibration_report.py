"""Tables and figures of calibration.py, from its rows alone."""

from pathlib import Path
from typing import Any

import polars as pl


def markdown(table: pl.DataFrame) -> str:
    return str(table)


def headline(table: pl.DataFrame) -> dict[str, Any]:
    return {}


def save_figures(table: pl.DataFrame, folder: Path) -> None:
    pass
