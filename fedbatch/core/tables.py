"""Tables of numbers that a user gives as a file: Parquet or CSV, with columns of known names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def read_table(
    field: str, path: str, needed: Sequence[str], more: Sequence[str] = ()
) -> Mapping[str, npt.NDArray[Any]]:
    """Columns of a file, (n,) each: ``client`` as int64, all others as float64, finite and without gaps.

    Args:
        field: key of the config that names the file, for messages.
        path: of a ``.parquet`` or ``.csv`` file.
        needed: columns that it must have.
        more: columns that it may have; further ones are not read.

    Raises:
        ValueError: naming the field and what is wrong with the file.
    """
    import polars as pl  # large, and needed only where somebody gives a file

    if not Path(path).is_file():
        raise ValueError(f"{field}: there is no file {path}")
    try:
        table = pl.read_csv(path) if path.endswith(".csv") else pl.read_parquet(path)
    except Exception as error:  # polars has an exception of its own for every way in which a file can be wrong
        reason = str(error).splitlines()[0]
        raise ValueError(f"{field}: {path} is neither a Parquet file nor a .csv file ({reason})") from error
    if lost := [name for name in needed if name not in table.columns]:
        raise ValueError(f"{field}: {path} has no column {lost[0]}; it has {', '.join(table.columns)}")
    found: dict[str, npt.NDArray[Any]] = {}
    for name in (*needed, *(name for name in more if name in table.columns)):
        column = table[name]
        if not column.dtype.is_numeric() or (name == "client" and not column.dtype.is_integer()):
            kind = "whole numbers" if name == "client" else "numbers"
            raise ValueError(f"{field}: column {name} of {path} must hold {kind} (it holds {column.dtype})")
        values = column.cast(pl.Float64 if name != "client" else pl.Int64, strict=False)  # what does not fit is a gap
        if values.null_count() or not np.isfinite(values.to_numpy()).all():
            raise ValueError(f"{field}: column {name} of {path} has gaps or numbers that are not finite")
        found[name] = values.to_numpy()
    if not len(table):
        raise ValueError(f"{field}: {path} has no rows")
    return found
