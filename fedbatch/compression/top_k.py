"""Top-k: the largest numbers alone, with their places (Aji and Heafield 2017; Stich et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.compression.stage import Field, Side, kept


@dataclass(frozen=True)
class TopK:
    """Send the ``k = share * n`` numbers of largest magnitude; all others are 0. It is biased.

    Attributes:
        share: of the numbers that are sent, in (0, 1].
    """

    share: float
    is_unbiased = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"compression: share of TopK must be in (0, 1] (got {self.share})")

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """The k largest numbers, and their places in ascending order."""
        places = vector.abs().topk(self.length(len(vector)), sorted=False).indices.sort().values
        return vector[places], {"places": places.int()}

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """The numbers in their places."""
        places = side["places"].long()
        if len(places) and not (places[0] >= 0 and places[-1] < n and (places.diff() > 0).all()):
            raise ValueError(f"places of TopK must ascend and be in 0 .. {n - 1}")
        decoded = vector.new_zeros(n)
        decoded[places] = vector
        return decoded

    def length(self, n: int) -> int:
        """The number k."""
        return kept(self.share, n)

    def fields(self, n: int) -> dict[str, Field]:
        """Four bytes for each place."""
        return {"places": (torch.int32, self.length(n))}

    def worst_error(self, n: int) -> float:
        """Of a vector whose numbers are equally large: 1 - k/n."""
        return 1 - self.length(n) / n if n else 0.0
