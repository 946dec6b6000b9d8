"""Whose answers a round takes: those in time, and of more clients than it wants the first (Bonawitz et al. 2019)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Arrivals:
    """What became of the clients that were asked.

    Attributes:
        taken: (K,) whose answers are taken.
        late: (K,) who come after the deadline, or after enough others.
        gone: (K,) who have left before they are done.
        least_seconds: the round lasts at least so long, as the server has waited in vain: until the deadline, or until
            it notices who has left.
    """

    taken: npt.NDArray[np.bool_]
    late: npt.NDArray[np.bool_]
    gone: npt.NDArray[np.bool_]
    least_seconds: float


def arrivals(
    seconds: npt.NDArray[np.float64], stays: npt.NDArray[np.bool_], deadline: float | None, wanted: int | None
) -> Arrivals:
    """Sort clients by what becomes of their answers.

    Args:
        seconds: (K,) after which each answers.
        stays: (K,) whether it is then still there.
        deadline: seconds; None for as long as it takes. That a client has left is noticed when its answer is due.
        wanted: answers after which the round ends; None for all.

    >>> arrivals(np.array([3.0, 1.0, 9.0, 2.0]), np.array([True, True, True, False]), 5.0, None).taken
    array([ True,  True, False, False])
    """
    limit = np.inf if deadline is None else deadline
    in_time = stays & (seconds <= limit)
    first = np.argsort(np.where(in_time, seconds, np.inf), kind="stable")[: int(in_time.sum())][:wanted]
    taken = np.zeros(len(seconds), dtype=bool)
    taken[first] = True
    is_full = wanted is not None and len(first) == wanted
    waited = 0.0 if is_full else float(np.minimum(seconds, limit)[~taken].max(initial=0.0))
    return Arrivals(taken, stays & ~taken, ~stays, waited)
