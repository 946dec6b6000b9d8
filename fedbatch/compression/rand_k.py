"""Rand-k: numbers at random places, which both ends draw from the key and nobody sends (Stich et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.compression.stage import Field, Side, generator, kept


@dataclass(frozen=True)
class RandK:
    """Send ``k = share * n`` numbers at random places, other ones for each client and round; all others are 0.

    Attributes:
        share: of the numbers that are sent, in (0, 1].
        is_unbiased: multiply by n/k, so that what is decoded is on average what was sent. Its error is then n/k - 1
            times the vector's squared length, which error feedback cannot make up for.
    """

    share: float
    is_unbiased: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"compression: share of RandK must be in (0, 1] (got {self.share})")

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """The numbers at k places."""
        return vector[self._places(len(vector), key).to(vector.device)], {}

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """The numbers in their places, times n/k."""
        decoded = vector.new_zeros(n)
        decoded[self._places(n, key).to(vector.device)] = vector * (n / self.length(n) if self.is_unbiased and n else 1)
        return decoded

    def length(self, n: int) -> int:
        """The number k."""
        return kept(self.share, n)

    def fields(self, n: int) -> dict[str, Field]:
        """Nothing is sent besides."""
        return {}

    def worst_error(self, n: int) -> float:
        """n/k - 1 without bias, else 1 - k/n."""
        if not n:
            return 0.0
        return n / self.length(n) - 1 if self.is_unbiased else 1 - self.length(n) / n

    def _places(self, n: int, key: int) -> Tensor:
        return torch.from_numpy(generator(key).permutation(n)[: self.length(n)]).sort().values
