"""Ways to find temperatures after training, from what clients hold out and do not train on."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedbatch.metrics.temperature import COARSE, GRID, least_soft_error, newton


class HeldOutPart(Protocol):
    """Held-out examples of all clients, half of them to fit on."""

    def sums(self, statistic: str, at: Tensor) -> Tensor:
        """The sums of one of `fedbatch.metrics.statistics.STATISTICS`."""
        ...

    def own_temperatures(self) -> Any:
        """Each client's own temperature (P,)."""
        ...


class SharedTemperature:
    """One temperature for all, with the least -ln p over all clients' held-out examples: exact, by Newton steps."""

    def fit(self, part: HeldOutPart) -> float:
        """The temperature in [0.05, 20]."""

        def sums(inverse: float) -> tuple[float, float, float]:
            value, slope, curvature = part.sums("scaled_nll", torch.tensor([inverse], dtype=torch.float64)).tolist()
            return value, slope, curvature

        return newton(sums)


class SoftBinTemperature:
    """One temperature for all, with the least soft-binned calibration error, from bin sums on a grid."""

    def fit(self, part: HeldOutPart) -> float:
        """One of `GRID`."""
        return least_soft_error(part.sums("soft_bins", 1 / GRID))


class ClientTemperature:
    """A temperature of its own for each client, from its own held-out examples."""

    def fit(self, part: HeldOutPart) -> Any:
        """Temperatures (P,)."""
        return part.own_temperatures()


@dataclass(frozen=True)
class PrivateTemperature:
    """One temperature for all from one noised release, charged to the ledger of a run with differential privacy.

    Every unit, an example or a client's mean, adds its curve of -ln p over eleven temperatures, clipped. The least of
    the noised sum is taken.

    Attributes:
        relative_noise: noise multiplier of the release over that of the first phase, > 0. Everyone takes part in it, so
            that with 1 it costs as much as a round in which everyone does.
        clip_norm: largest length of a unit's curve, > 0, in nats. Smaller ones bias the temperature towards that of the
            examples that are told apart least.
    """

    relative_noise: float
    clip_norm: float

    def __post_init__(self) -> None:
        if not (self.relative_noise > 0 and 0 < self.clip_norm < float("inf")):
            raise ValueError(
                f"temperature: relative_noise and clip_norm must be > 0 (got {self.relative_noise}, {self.clip_norm})"
            )

    def least(self, curve: Tensor) -> float:
        """The temperature at the least of a noised curve (G,)."""
        return float(COARSE[int(curve.argmin())])


Scaling = SharedTemperature | SoftBinTemperature | ClientTemperature | PrivateTemperature
