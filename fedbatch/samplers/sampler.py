"""What a sampler is told, and what it answers."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """The clients that can be asked: they are there and have examples.

    Attributes:
        clients: int64 (P,) ids, ascending.
        num_examples: int64 (P,) training examples of each.
        losses: float64 (P,) mean training loss of each when it last took part, NaN for who never has; all NaN for a
            sampler without ``needs_losses``.
    """

    clients: Ints
    num_examples: Ints
    losses: Floats


@dataclass(frozen=True)
class Sample:
    """A cohort.

    Attributes:
        clients: int64 (K,) ids of candidates, ascending.
        factors: float64 (K,) > 0, on the weights of their updates: the mean chance over that of each. (0,) for none.
            With them the sum of updates is divided by the weight that is expected and not by the one of the cohort.
    """

    clients: Ints
    factors: Floats = field(default_factory=lambda: np.zeros(0))


class Sampler(Protocol):
    """A pure function from candidates to a cohort.

    Attributes:
        is_unbiased: whether the update is, on average over its draws, the mean of all candidates by the run's weights.
            Without factors, a mean is a ratio of two sums, and is so where weights are equal, or nearly.
        needs_losses: whether it wants last known losses; false where it is missing.
        corrects: whether it gives factors; false where it is missing.
        tables: arrays of what it has read from files, which belong to the data of a run; missing where there are none.
    """

    is_unbiased: bool

    def __call__(self, candidates: Candidates, count: int, key: int) -> Sample:
        """``count`` of the candidates, 1 <= count <= P; all chance is by ``key``, 64 bits that name run and round."""
        ...
