"""Numbers, truth values and dates that are written as text."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]

MISSING = {"", "na", "n/a", "#n/a", "#na", "nan", "-nan", "null", "none", "<na>", "?"}
"""Words, in small letters, that stand for a missing number in a column of numbers."""

ANOTHER_NOTATION = r"[-+(]?\s*[$€£¥]?\s*[-+]?\d[\d.,'\s]*([eE][-+]?\d+)?\s*[%€$£¥]?\)?"
"""A number with a decimal comma, thousands separators, a currency or a per cent sign."""


def parsed(texts: pa.ChunkedArray) -> pa.Array | None:
    """The values of a column of text that holds numbers only, or ``true`` and ``false`` only; None where it does not.

    Whole numbers stay exact. In a column of numbers the words of MISSING are missing.
    """
    import pandas as pd

    words = pd.Series(texts.to_pandas().astype(object))
    small = words.str.strip().str.lower()
    missing = (words.isna() | small.isin(MISSING)).to_numpy(bool)
    filled = words[~missing]
    if not len(filled):
        return None
    if small.dropna().isin(["true", "false"]).all():
        return pa.array((small == "true").to_numpy(bool), mask=words.isna().to_numpy(bool))
    numbers = pd.to_numeric(filled, errors="coerce").to_numpy()
    if np.isnan(numbers).any():
        return None
    values = np.zeros(len(words), numbers.dtype)
    values[~missing] = numbers
    return pa.array(values, mask=missing)


def dates(texts: pa.ChunkedArray) -> pa.Array | None:
    """The values of a column of text that holds dates of ISO 8601 only, in microseconds; None where it does not."""
    import pandas as pd

    words = texts.to_pandas().astype(object)
    if not words.dropna().str.match(r"\s*\d{4}-\d\d-\d\d").all() or not words.notna().any():
        return None
    try:
        times = pd.to_datetime(words, format="ISO8601", utc=True).dt.as_unit("us")
    except (ValueError, OverflowError):
        return None
    return pa.array(times.astype("int64").to_numpy(), mask=words.isna().to_numpy(bool))


def by_notation(texts: pa.ChunkedArray) -> tuple[Mask, Mask, Mask]:
    """Which rows hold a plain number, one in another notation, and none, but no word of MISSING; each ``(rows,)``."""
    import pandas as pd

    words = texts.to_pandas().astype(object).str.strip()
    filled = (words.notna() & ~words.str.lower().isin(MISSING)).to_numpy(bool)
    plain = filled & pd.to_numeric(words, errors="coerce").notna().to_numpy(bool)
    other = filled & ~plain & words.str.fullmatch(ANOTHER_NOTATION).eq(True).to_numpy(bool)
    return plain, other, filled & ~plain & ~other
