"""Files of comma-separated values, read as text first, so that nothing is guessed from a part of a column."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fedbatch.data.text_numbers import parsed

SEPARATORS = ",;\t|"


def read(files: Iterable[str], columns: list[str]) -> Any:
    """One table of text, a ``datasets.Dataset``, from the rows of ``files``, paths with the same columns.

    Only an empty field is missing: ``None``, ``NA`` or ``nan`` are words. The separator is the one of
    comma, semicolon, tab and bar by which the first line holds ``columns``.

    Raises:
        ValueError: a file is no table of this kind; the reader's own words say where.
    """
    import datasets
    import pandas as pd

    frames = []
    for file in files:
        separator = _separator(file, columns)
        if repeated := _repeated(file, separator, columns):
            raise ValueError(f"{file} has more than one column {repeated}; give each its own name")
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            try:
                # Without a column for the index, more fields than names would shift every column by one.
                frames.append(_text(file, sep=separator, index_col=False))
            except pd.errors.ParserWarning as error:
                raise ValueError(f"{file} has rows with more fields than its first line has names") from error
    table = pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)
    return datasets.Dataset(table.replace_schema_metadata(None))


def typed(splits: Mapping[str, Any], inputs: list[str], names: list[str]) -> dict[str, Any]:
    """The splits, with the columns that hold only numbers, or only true and false, in every split as such.

    Args:
        splits: tables, ``datasets.Dataset``, by name.
        inputs: columns of inputs to convert; a word like ``NA`` among numbers is missing.
        names: columns of labels and owners to convert, alike.

    Raises:
        ValueError: two different ``names`` in one column are the same number, as 7 and 007.
    """
    import datasets

    tables: dict[str, pa.Table] = {split: rows.with_format("arrow")[:] for split, rows in splits.items()}
    for column in dict.fromkeys([*inputs, *names]):
        texts = {split: table[column] for split, table in tables.items() if column in table.column_names}
        values = {split: parsed(each.cast(pa.string())) for split, each in texts.items() if _is_text(each)}
        if len(values) < len(texts) or any(each is None for each in values.values()):
            continue
        found = {split: each for split, each in values.items() if each is not None}
        if len({pa.types.is_boolean(each.type) for each in found.values()}) > 1:
            continue
        for split, each in found.items():
            if column in names and _is_ambiguous(texts[split], each):
                raise ValueError(f"column {column} writes one number in several ways, as 7 and 007; write names alike")
            tables[split] = tables[split].set_column(tables[split].column_names.index(column), column, each)
    return {split: datasets.Dataset(table.replace_schema_metadata(None)) for split, table in tables.items()}


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _is_ambiguous(texts: pa.ChunkedArray, values: pa.Array) -> bool:
    return bool(values.null_count == texts.null_count and len(values.unique()) < len(texts.unique()))


def _text(file: str, **options: Any) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig", **options)
    except UnicodeError as error:
        raise ValueError(f"{file} is not in UTF-8 ({error}); save it as UTF-8") from error


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
