"""Clients who are there for a part of every day, such as phones that charge at night (Eichner et al. 2019)."""

from dataclasses import dataclass

import numpy as np

from fedbatch.availability.availability import Bools, Floats
from fedbatch.availability.periods import last_turn
from fedbatch.core.random import Ints, key, uniforms


@dataclass(frozen=True)
class Diurnal:
    """Each client is there during one window of every period; where in the period it begins is the client's own.

    Attributes:
        period_seconds: from one window to the next.
        share: length of a window over that of the period, in (0, 1].
        start: where the first client's window begins, as a share of the period.
        spread: windows begin between ``start`` and ``start + spread``, uniformly; 0 for all together, 1 for all day.
    """

    period_seconds: float = 86400.0
    share: float = 0.5
    start: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"availability.share must be in (0, 1] (got {self.share})")
        if not self.period_seconds > 0:
            raise ValueError(f"availability.period_seconds must be > 0 (got {self.period_seconds})")

    def is_there(self, clients: Ints, seconds: float | Floats, seed: int) -> Bools:
        """Whether each client's window is open, (K,)."""
        starts = self._starts(clients, seed)
        opened = starts + last_turn(seconds, starts, self.period_seconds) * self.period_seconds
        return np.asarray(seconds < opened + self.share * self.period_seconds)

    def next_seconds(self, clients: Ints, seconds: float, seed: int) -> float:
        """Now if a window is open, else when the first one opens."""
        if not len(clients):
            return float("inf")
        if self.is_there(clients, seconds, seed).any():
            return seconds
        starts = self._starts(clients, seed)
        return float((starts + (last_turn(seconds, starts, self.period_seconds) + 1) * self.period_seconds).min())

    def _starts(self, clients: Ints, seed: int) -> Floats:
        places = uniforms(key(seed, "availability"), clients, np.zeros_like(clients))
        return np.asarray(self.period_seconds * (self.start + self.spread * places))
