"""Markdown tables of the studies."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import stdtrit  # comes with scikit-learn


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


def interval(values: npt.ArrayLike) -> tuple[float, float, float]:
    """Mean of (n,) values and the bounds of its 90 % interval by Student's t; without bounds below two values.

    >>> [round(bound, 3) for bound in interval([1.0, 2.0, 3.0])]
    [2.0, 0.314, 3.686]
    """
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2:
        return (float(numbers.mean()) if len(numbers) else np.nan, -np.inf, np.inf)
    half = float(stdtrit(len(numbers) - 1, 0.95)) * numbers.std(ddof=1) / len(numbers) ** 0.5
    return float(numbers.mean()), float(numbers.mean() - half), float(numbers.mean() + half)


def verdict(*claims: bool | None) -> str:
    """Of a claim in parts: it holds if all parts do, and does not if one does not; None is a part that is not told.

    >>> verdict(True, True), verdict(True, None), verdict(None, False)
    ('holds', 'cannot be told', 'does not hold at this scale')
    """
    if False in claims:
        return "does not hold at this scale"
    return "cannot be told" if None in claims else "holds"


def above(bounds: tuple[float, float, float], limit: float) -> bool | None:
    """Whether a mean is above a limit, by its `interval`; None where the interval has the limit in it.

    >>> above((2.0, 1.5, 2.5), 1.0), above((2.0, 1.5, 2.5), 3.0), above((2.0, 1.5, 2.5), 2.2)
    (True, False, None)
    """
    return True if bounds[1] > limit else False if bounds[2] < limit else None
