"""Clients who are there when a file says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedbatch.availability.availability import Bools, Floats
from fedbatch.availability.periods import last_turn
from fedbatch.core.random import Ints
from fedbatch.core.tables import read_table


@dataclass(frozen=True)
class Trace:
    """Intervals ``[start, end)`` in simulated seconds, any number for a client; a client without one is never there.

    Attributes:
        file: Parquet or CSV, with columns ``client`` (whole numbers), ``start`` and ``end`` (seconds).
        repeat_seconds: the trace begins anew after so long; None for once.
    """

    file: str
    repeat_seconds: float | None = None

    def __post_init__(self) -> None:
        client, start, end = self.tables
        period = float("inf") if self.repeat_seconds is None else self.repeat_seconds
        wrong = (client < 0) | (start < 0) | (start >= end) | (end > period)
        if wrong.any():
            row = int(np.argmax(wrong))
            until = "" if self.repeat_seconds is None else f" <= repeat_seconds ({self.repeat_seconds:g})"
            raise ValueError(
                f"availability.file: every row must have client >= 0 and 0 <= start < end{until} (client "
                f"{client[row]}: {start[row]:g} to {end[row]:g})"
            )
        overlap = (client[1:] == client[:-1]) & (start[1:] < end[:-1])
        if overlap.any():
            raise ValueError(f"availability.file: intervals of client {client[1:][overlap][0]} overlap; join them")

    @cached_property
    def tables(self) -> Sequence[np.ndarray]:
        """Clients, starts and ends (n,), ordered by client and start."""
        read = read_table("availability.file", self.file, ("client", "start", "end"))
        order = np.lexsort((read["start"], read["client"]))
        return tuple(read[name][order] for name in ("client", "start", "end"))

    def is_there(self, clients: Ints, seconds: float | Floats, seed: int) -> Bools:
        """Whether a time lies in an interval of each client, (K,)."""
        client, start, end = self.tables
        now = np.broadcast_to(np.asarray(seconds, np.float64), clients.shape)
        since, first = self._begun(now), np.searchsorted(client, clients)
        low, high = first.copy(), np.searchsorted(client, clients, side="right")
        while (open_ := low < high).any():  # bisection in all clients' rows at once: the first that starts after now
            middle = np.where(open_, (low + high) // 2, 0)
            before = since + start[middle] <= now
            low, high = np.where(open_ & before, middle + 1, low), np.where(open_ & ~before, middle, high)
        last = np.maximum(low - 1, 0)
        return np.asarray((low > first) & (now < since + end[last]))

    def next_seconds(self, clients: Ints, seconds: float, seed: int) -> float:
        """Now if a client is there, else the next start of one."""
        if len(clients) and self.is_there(clients, seconds, seed).any():
            return seconds
        starts = self.tables[1][np.isin(self.tables[0], clients)]
        since = float(self._begun(seconds))
        coming = since + starts
        if self.repeat_seconds is not None:
            again = (last_turn(seconds, 0.0, self.repeat_seconds) + 1) * self.repeat_seconds
            coming = np.concatenate([coming, again + starts])
        return float(coming[coming > seconds].min(initial=np.inf))

    def _begun(self, seconds: float | Floats) -> Floats:
        """When the trace began that is on, the last time before now."""
        if self.repeat_seconds is None:
            return np.zeros(np.shape(seconds))
        return last_turn(seconds, 0.0, self.repeat_seconds) * self.repeat_seconds
