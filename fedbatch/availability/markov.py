"""Clients who come and go: a Markov chain with two states for each, in steps of equal length.

Nothing is kept from step to step. One number u in [0, 1) decides a step of a client: who is away comes if u < arrive,
and who is there stays if u < 1 - leave. Where u is below both or above both, the next state is the same whatever the
state was; so the state of today follows from the last such step, which lies some ``1 / (arrive + leave)`` steps back
(coupling from the past; Propp and Wilson 1996). In between the state is kept, or is turned over at each step where
``arrive > 1 - leave``. The chain so read is stationary from the start, and equal in whatever order it is asked.
"""

from dataclasses import dataclass

import numpy as np

from fedbatch.availability.availability import Bools, Floats
from fedbatch.availability.periods import last_turn
from fedbatch.core.random import Ints, key, uniforms

LEAST = 0.001
"""Chance that a step decides, at least: a client's state is then sought a few thousand steps back and no further."""


@dataclass(frozen=True)
class Markov:
    """A client is there for ``arrive / (arrive + leave)`` of the time, on average.

    Attributes:
        arrive: chance of a client who is away to come, in a step; in [0.001, 1].
        leave: chance of a client who is there to go; in [0, 1], and ``arrive + leave`` at most 1.999.
        step_seconds: length of a step.
    """

    arrive: float = 0.1
    leave: float = 0.1
    step_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not LEAST <= self.arrive <= 1 or not 0 <= self.leave <= 1 or self.arrive + self.leave > 2 - LEAST:
            raise ValueError(
                f"availability.arrive must be in [{LEAST}, 1] and leave in [0, 1], with a sum of at most {2 - LEAST} "
                f"(got {self.arrive} and {self.leave}); make step_seconds longer for rarer changes"
            )
        if not self.step_seconds > 0:
            raise ValueError(f"availability.step_seconds must be > 0 (got {self.step_seconds})")

    def is_there(self, clients: Ints, seconds: float | Floats, seed: int) -> Bools:
        """The states (K,), each in its client's own or one step."""
        steps = last_turn(np.broadcast_to(seconds, clients.shape), 0.0, self.step_seconds).astype(np.int64)
        low, high = sorted((self.arrive, 1 - self.leave))
        turns_over = self.arrive > 1 - self.leave
        found, odd, sought = np.zeros(len(clients), bool), np.zeros(len(clients), bool), np.arange(len(clients))
        while len(sought):
            u = uniforms(key(seed, "availability"), clients[sought], steps[sought])
            decided = (u < low) | (u >= high)
            rows = sought[decided]
            found[rows] = (u[decided] < low) ^ odd[rows]
            sought = sought[~decided]
            odd[sought] ^= turns_over
            steps[sought] -= 1
        return found

    def next_seconds(self, clients: Ints, seconds: float, seed: int) -> float:
        """Now if a client is there, else the first step in which one comes."""
        if not len(clients):
            return float("inf")
        if self.is_there(clients, seconds, seed).any():
            return seconds
        step, count = int(last_turn(seconds, 0.0, self.step_seconds)), max(1, 100_000 // len(clients))
        while True:  # all are away until one comes, and arrive is at least LEAST
            steps = step + 1 + np.arange(count)
            came = uniforms(key(seed, "availability"), clients[None, :], steps[:, None]) < self.arrive
            if came.any():
                return float(steps[came.any(axis=1)][0] * self.step_seconds)
            step += count
