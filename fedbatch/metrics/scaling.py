"""Ways to find temperatures after training, from what clients hold out and do not train on."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fedbatch.metrics.temperature import GRID, least_soft_error, newton


class Additive(Protocol):
    """Predictions that answer with sums over all of them."""

    def sums(self, statistic: str, at: Tensor) -> Tensor:
        """The sums of one of `fedbatch.metrics.statistics.STATISTICS`."""
        ...


class Clients(Additive, Protocol):
    """Held-out examples of all clients."""

    def own_temperatures(self) -> Any:
        """Each client's own temperature (P,)."""
        ...


class Scaling(Protocol):
    """A way to find temperatures.

    ``is_private`` says whether it is one temperature from noised releases, with ``relative_noise`` and ``clip_norm``;
    else ``fit(held_out)`` gives one for all, or those of the clients (P,).
    """

    is_private: ClassVar[bool]


class SharedTemperature:
    """One temperature for all, with the least -ln p over all clients' held-out examples: exact, by Newton steps."""

    is_private = False

    def fit(self, part: Additive) -> float:
        """The temperature in [0.05, 20]."""

        def sums(inverse: float) -> tuple[float, float, float]:
            value, slope, curvature = part.sums("scaled_nll", torch.tensor([inverse], dtype=torch.float64)).tolist()
            return value, slope, curvature

        return newton(sums)


class SoftBinTemperature:
    """One temperature for all, with the least soft-binned calibration error, from bin sums on a grid."""

    is_private = False

    def fit(self, part: Additive) -> float:
        """One of `GRID`."""
        return least_soft_error(part.sums("soft_bins", 1 / GRID))


class ClientTemperature:
    """A temperature of its own for each client, from its own held-out examples."""

    is_private = False

    def fit(self, part: Clients) -> Any:
        """Temperatures (P,)."""
        return part.own_temperatures()


@dataclass(frozen=True)
class PrivateTemperature:
    """One temperature for all, in a run with differential privacy, from seven noised releases charged to its ledger.

    Every unit, an example or a client, adds its (mean) slope of -ln p in 1 / T, clipped; the sign of the noised sum
    says on which side the temperature lies, and its range is halved.

    Attributes:
        relative_noise: noise multiplier of each release over that of the first phase, > 0. Everyone takes part, so the
            seven cost together what ``7 / relative_noise^2`` rounds cost in which everyone does.
        clip_norm: largest slope of a unit, > 0, in units of a logit. Of the slopes the few that are long belong to sure
            and wrong predictions: a small clip norm gives too low a temperature.
    """

    relative_noise: float
    clip_norm: float

    is_private = True

    def __post_init__(self) -> None:
        if not (self.relative_noise > 0 and 0 < self.clip_norm < float("inf")):
            raise ValueError(
                f"temperature: relative_noise and clip_norm must be > 0 (got {self.relative_noise}, {self.clip_norm})"
            )
