"""Markdown tables of the studies."""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with one line a row.

    >>> print(table(["a", "b"], [["1", "2"]]), end="")
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [headings, ["---"] * len(headings), *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text) + "\n"


def spread(values: pl.Series, form: str = ".3f") -> str:
    """Mean and standard deviation of what is finite, and how many are not.

    >>> spread(pl.Series([1.0, 3.0])), spread(pl.Series([1.0])), spread(pl.Series([1.0, float("nan")]))
    ('2.000 +- 1.414', '1.000', '1.000 (1 failed)')
    """
    numbers = values.cast(pl.Float64).to_numpy()
    done = numbers[np.isfinite(numbers)]
    if not len(done):
        return f"- ({len(numbers)} failed)" if len(numbers) else "-"
    text = f"{done.mean():{form}}"
    if len(done) > 1:
        text += f" +- {done.std(ddof=1):{form}}"
    return text if len(done) == len(numbers) else f"{text} ({len(numbers) - len(done)} failed)"
