"""Simulated seconds: a stated model of what a round would cost on real devices and links."""

from dataclasses import dataclass

import numpy as np

from fedbatch.core.random import Ints, bits, key


@dataclass(frozen=True)
class TimeModel:
    """``max_k(compute_k * examples_k) + 2 * latency + bytes_down / down_rate + bytes_up / up_rate``.

    Clients work at once, so the slowest sets the pace; each has its own link to the server.

    Attributes:
        compute_seconds_per_example: forward and backward on the median client.
        speed_spread: standard deviation of log speed over clients; 0 for equal clients.
        latency_seconds: one way.
        bandwidth_down_bytes_per_second: server to one client.
        bandwidth_up_bytes_per_second: one client to server.
    """

    compute_seconds_per_example: float
    speed_spread: float
    latency_seconds: float
    bandwidth_down_bytes_per_second: float
    bandwidth_up_bytes_per_second: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name.startswith("bandwidth")):
                raise ValueError(
                    f"time_model: {name} must {'be > 0' if value == 0 else 'not be negative'} (got {value})"
                )

    def round_seconds(self, seed: int, clients: Ints, num_examples: Ints, bytes_down: int, bytes_up: int) -> float:
        """Seconds of a round.

        Args:
            seed: fixes which clients are slow.
            clients: int64 (K,) ids.
            num_examples: int64 (K,) examples each processes.
            bytes_down: bytes to one client.
            bytes_up: bytes from one client.

        >>> TimeModel(0.1, 0.0, 1.0, 100.0, 10.0).round_seconds(0, np.array([4, 7]), np.array([10, 20]), 100, 10)
        6.0
        """
        compute = self.compute_seconds_per_example * num_examples
        if self.speed_spread:
            compute = compute * np.exp(self.speed_spread * _standard_normal(key(seed, "speed"), clients))
        transfer = bytes_down / self.bandwidth_down_bytes_per_second + bytes_up / self.bandwidth_up_bytes_per_second
        return float(compute.max(initial=0.0)) + 2 * self.latency_seconds + transfer


def _standard_normal(key_: int, clients: Ints) -> np.ndarray:
    # Box-Muller on two keyed uniforms in (0, 1].
    u, v = (((bits(key_, clients, np.full_like(clients, s)) >> np.uint64(11)) + 1) / 2.0**53 for s in (0, 1))
    return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
