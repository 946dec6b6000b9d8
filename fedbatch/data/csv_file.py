"""Files of comma-separated values, read as text first, so that nothing is guessed from a part of a column."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from fedbatch.data.text_numbers import parsed

SEPARATORS = ",;\t|"


def read(files: Iterable[str], inputs: list[str], names: list[str]) -> Any:
    """One table, a ``datasets.Dataset``, from the rows of ``files``.

    Only an empty field is missing: ``None``, ``NA`` or ``nan`` are words, unless all other fields of a column are
    numbers. The separator is the one of comma, semicolon, tab and bar by which the first line holds the wanted columns.

    Args:
        files: paths, all with the same columns.
        inputs: columns of inputs that are wanted.
        names: columns of labels and owners that are wanted.

    Raises:
        ValueError: a file is no table of this kind; the reader's own words say where.
    """
    import datasets
    import pandas as pd

    columns, frames = [*inputs, *names], []
    for file in files:
        separator = _separator(file, columns)
        if repeated := _repeated(file, separator, columns):
            raise ValueError(f"{file} has more than one column {repeated}; give each its own name")
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # fields beyond the header
            # Without a column for the index, more fields than names would shift every column by one.
            frames.append(_text(file, sep=separator, index_col=False))
    table = pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)
    return typed(datasets.Dataset(table), inputs, names)


def typed(rows: Any, inputs: list[str], names: list[str]) -> Any:
    """The table with those of its columns that hold only numbers, or only true and false, as such.

    Raises:
        ValueError: two different ``names`` in one column are the same number, as 7 and 007.
    """
    import datasets

    table: pa.Table = rows.with_format("arrow")[:]
    for column in dict.fromkeys([*inputs, *names]):
        if column in table.column_names and pa.types.is_string(_plain(table[column]).type):
            texts = _plain(table[column])
            values = parsed(texts)
            if values is None:
                continue
            if column in names and values.null_count == texts.null_count and len(values.unique()) < len(texts.unique()):
                raise ValueError(f"column {column} writes one number in several ways, as 7 and 007; write names alike")
            table = table.set_column(table.column_names.index(column), column, values)
    return datasets.Dataset(table.replace_schema_metadata(None))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _text(file: str, **options: Any) -> Any:
    import pandas as pd

    return pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig", **options)


def _separator(file: str, columns: list[str]) -> str:
    for separator in SEPARATORS:
        if {*columns} <= {*_names(file, separator)}:
            return separator
    return SEPARATORS[0]


def _names(file: str, separator: str) -> list[str]:
    # Read as a row, because the reader renames what stands twice in a header.
    first = _text(file, sep=separator, header=None, nrows=1)
    return [str(name) for name in first.iloc[0].fillna("")] if len(first) else []


def _repeated(file: str, separator: str, columns: list[str]) -> str | None:
    names, counts = np.unique(_names(file, separator), return_counts=True)
    return next((str(name) for name in names[counts > 1] if name in columns), None)
