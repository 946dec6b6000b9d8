"""What an update counts that was begun some steps of the server ago."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints

Floats = npt.NDArray[np.float64]


class Staleness(Protocol):
    """Factors on the weights of updates."""

    def __call__(self, staleness: Ints) -> Floats:
        """Positive factors (K,) of updates whose clients began ``staleness`` (K,) steps ago, from 0."""
        ...


@dataclass(frozen=True)
class Polynomial:
    """``(1 + t)^-exponent`` (Xie, Koyejo and Gupta 2019; 0.5 in Nguyen et al. 2022).

    >>> Polynomial(0.5)(np.array([0, 3]))
    array([1. , 0.5])
    """

    exponent: float

    def __call__(self, staleness: Ints) -> Floats:
        """Factors (K,) in (0, 1]."""
        return np.asarray((1.0 + staleness) ** -self.exponent)
