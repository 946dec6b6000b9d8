"""What a model of availability answers."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Availability(Protocol):
    """Who is there at which simulated second: a function of its arguments, without a state of its own.

    It may have an attribute ``tables``, arrays of what it has read from files, which then belong to the data of a run.
    """

    def is_there(self, clients: Ints, seconds: float | Floats, seed: int) -> Bools:
        """Whether each client is there, (K,).

        Args:
            clients: int64 (K,) ids, ascending.
            seconds: simulated, at least 0; one time for all, or (K,) times.
            seed: of the run.
        """
        ...

    def next_seconds(self, clients: Ints, seconds: float, seed: int) -> float:
        """The first time, not before ``seconds``, at which one of the clients is there; infinite if never."""
        ...
