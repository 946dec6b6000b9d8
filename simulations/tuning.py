"""The learning rate of a study's cell: a walk on a geometric grid, which has no edge."""

import math
from collections.abc import Callable


def tuned(cost: Callable[[float], float], start: float, factor: float = 2.0, runs: int = 9) -> float:
    """The rate of least cost among ``start * factor**k``: walk downhill until both neighbours cost more.

    Args:
        cost: of a rate; smaller is better, and NaN counts as infinite (a run that diverged).
        start: where the walk begins.
        factor: between neighbours, > 1.
        runs: calls of ``cost`` after which the walk ends where it is.

    >>> tuned(lambda rate: abs(rate - 30), start=1.0)
    32.0
    """
    costs: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in costs:
            value = cost(start * factor**place)
            costs[place] = math.inf if math.isnan(value) else value
        return costs[place]

    best = 0
    while len(costs) < runs:
        around = (best, best + 1, best - 1)
        lowest = min(around, key=at)
        if math.isinf(costs[lowest]):
            lowest = best - 1  # all diverged: smaller steps
        if lowest == best:
            break
        best = lowest
    return float(start * factor**best)
