"""What a score is: its name, which way is better, and the range that it cannot leave."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core.errors import RunFailedError

ROUNDING = 1e-6
"""By how much sums that were rounded may carry a score beyond its range, relative to 1."""


@dataclass(frozen=True)
class Score:
    """A number that a task computes of predictions.

    Attributes:
        name: without the split: the columns are ``test_<name>``, ``training_set_<name>``, ``average_test_<name>``.
        meaning: one line, of the test split.
        better: "higher" or "lower"; "" where it is no score but tells of one.
        low, high: the range, both ends included; infinite where there is none.
    """

    name: str
    meaning: str
    better: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Scoring:
    """What a run says of its scores to those who read it.

    Attributes:
        names: of all scores, without the split.
        score: *the* score among them.
        better: "higher" or "lower", of the score.
        facts: plain values that a reader needs besides.
    """

    names: tuple[str, ...] = ("accuracy",)
    score: str = "accuracy"
    better: str = "higher"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """For the summary of a run."""
        return {"score": f"test_{self.score}", "score_better": self.better, **self.facts}


def score_of(summary: Mapping[str, Any]) -> str:
    """The column of the score of a run; runs of an earlier fedbatch do not say it.

    >>> score_of({"score": "test_r2"}), score_of({})
    ('test_r2', 'test_accuracy')
    """
    return str(summary.get("score", "test_accuracy"))


def in_words(column: str) -> str:
    """What a column of a test split is called in a line of its own.

    >>> in_words("test_macro_f1")
    'macro f1'
    """
    return column.removeprefix("test_").replace("_", " ")


def number(value: float) -> str:
    """A score in a table: thousandths where these say it, else four digits.

    >>> number(0.61243), number(123456.7), number(0.0000321)
    ('0.612', '1.235e+05', '3.21e-05')
    """
    return f"{value:.3f}" if value != value or value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"


def checked(scores: Iterable[Score], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values, numbers or arrays of them, under the names of their columns, in the order of ``scores``.

    Raises:
        RunFailedError: a value outside its range, or none of that name.
    """
    found = {}
    for score in scores:
        column = f"{prefix}{score.name}"
        if score.name not in values:
            raise RunFailedError(f"{column}: the task gives only {', '.join(values)}; its method scores must name all")
        worst = _outside(np.asarray(values[score.name], dtype=np.float64), score)
        if worst is not None:
            raise RunFailedError(
                f"{column} is {worst:.6g}, outside [{score.low:g}, {score.high:g}]: the task's sums are wrong"
            )
        found[column] = values[score.name]
    return found


def _outside(values: npt.NDArray[np.float64], score: Score) -> float | None:
    """A value outside of the range; not-a-number, where nothing could be scored, is none."""
    bad = (values < score.low - ROUNDING) | (values > score.high + ROUNDING)
    return float(values[bad].flat[0]) if bad.any() else None
