"""Simulated seconds: a stated model of what a round would cost on real devices and links."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints, bits, key
from fedbatch.core.tables import read_table

Floats = npt.NDArray[np.float64]
SPEEDS = ("seconds_per_example", "down_bytes_per_s", "up_bytes_per_s")


@dataclass(frozen=True)
class TimeModel:
    """``max_k(compute_k * examples_k + 2 * latency + bytes_down / down_rate_k + bytes_up / up_rate_k)``.

    Clients work at once, so the slowest sets the pace; each has its own link to the server.

    Attributes:
        compute_seconds_per_example: forward and backward on the median client.
        speed_spread: standard deviation of log speed over clients; 0 for equal clients.
        latency_seconds: one way.
        bandwidth_down_bytes_per_second: server to one client.
        bandwidth_up_bytes_per_second: one client to server.
        speeds: Parquet or CSV with columns ``client``, ``seconds_per_example`` and, where links differ,
            ``down_bytes_per_s`` and ``up_bytes_per_s``; a client's own numbers in the place of those above. It is read
            when it is first needed, which a node never does.
    """

    compute_seconds_per_example: float
    speed_spread: float
    latency_seconds: float
    bandwidth_down_bytes_per_second: float
    bandwidth_up_bytes_per_second: float
    speeds: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and (value < 0 or (value == 0 and name.startswith("bandwidth"))):
                raise ValueError(
                    f"time_model: {name} must {'be > 0' if value == 0 else 'not be negative'} (got {value})"
                )

    def round_seconds(self, seed: int, clients: Ints, num_examples: Ints, bytes_down: int, bytes_up: int) -> float:
        """Seconds of a round; of one with nobody in it, those of the messages.

        Args:
            seed: fixes which clients are slow.
            clients: int64 (K,) ids.
            num_examples: int64 (K,) examples each processes.
            bytes_down: bytes to one client.
            bytes_up: bytes from one client.

        >>> TimeModel(0.1, 0.0, 1.0, 100.0, 10.0).round_seconds(0, np.array([4, 7]), np.array([10, 20]), 100, 10)
        6.0
        """
        if len(clients):
            return float(self.client_seconds(seed, clients, num_examples, bytes_down, bytes_up).max())
        down, up = self.bandwidth_down_bytes_per_second, self.bandwidth_up_bytes_per_second
        return 2 * self.latency_seconds + (bytes_down / down + bytes_up / up)

    def client_seconds(self, seed: int, clients: Ints, num_examples: Ints, bytes_down: int, bytes_up: int) -> Floats:
        """Seconds (K,) until the answer of each client is there; arguments as in `round_seconds`."""
        down: float | Floats = self.bandwidth_down_bytes_per_second
        up: float | Floats = self.bandwidth_up_bytes_per_second
        if self.speeds is None:
            compute = self.compute_seconds_per_example * num_examples
            if self.speed_spread:
                compute = compute * np.exp(self.speed_spread * _standard_normal(key(seed, "speed"), clients))
        else:
            self.check_clients(clients)
            rows = np.searchsorted(self.tables[0], clients)
            each, down, up = (column[rows] for column in self.tables[1:])
            compute = each * num_examples
        return np.asarray(compute + 2 * self.latency_seconds + (bytes_down / down + bytes_up / up))

    @cached_property
    def tables(self) -> Sequence[np.ndarray]:
        """Of the file: clients (n,), ascending, and the columns of `SPEEDS`; empty without one.

        Raises:
            ValueError: the file is not as it must be.
        """
        if self.speeds is None:
            return ()
        found = read_table("time_model.speeds", self.speeds, ("client", SPEEDS[0]), SPEEDS[1:])
        order = np.argsort(found["client"], kind="stable")
        clients = found["client"][order]
        if (clients[1:] == clients[:-1]).any():
            raise ValueError(f"time_model.speeds: {self.speeds} names a client twice")
        links = {
            SPEEDS[1]: np.full(len(order), float(self.bandwidth_down_bytes_per_second)),
            SPEEDS[2]: np.full(len(order), float(self.bandwidth_up_bytes_per_second)),
        }
        columns = [{**links, **found}[name][order] for name in SPEEDS]
        for name, column in zip(SPEEDS, columns, strict=True):
            if (column < 0).any() or (name != SPEEDS[0] and (column == 0).any()):
                raise ValueError(f"time_model.speeds: {name} must be positive in every row of {self.speeds}")
        return (clients, *columns)

    def check_clients(self, clients: Ints) -> None:
        """All clients have speeds.

        Raises:
            ValueError: naming one that has none, or what is wrong with the file.
        """
        if self.tables and len(lost := np.setdiff1d(clients, self.tables[0])):
            raise ValueError(f"time_model.speeds: {self.speeds} has no row for client {lost[0]}")

    def typical(self) -> "TimeModel":
        """The model of median clients, alike for all."""
        if not self.tables:
            return replace(self, speed_spread=0.0)
        each, down, up = (float(np.median(column)) for column in self.tables[1:])
        return TimeModel(each, 0.0, self.latency_seconds, down, up)


def _standard_normal(key_: int, clients: Ints) -> np.ndarray:
    # Box-Muller on two keyed uniforms in (0, 1].
    u, v = (((bits(key_, clients, np.full_like(clients, s)) >> np.uint64(11)) + 1) / 2.0**53 for s in (0, 1))
    return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
