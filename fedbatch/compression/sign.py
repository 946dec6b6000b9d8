"""Signs in one bit each, with one scale or by majority (Seide et al. 2014; Bernstein et al. 2018)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.compression.packing import pack, packed_bytes, unpack
from fedbatch.compression.stage import Field, Side


@dataclass(frozen=True)
class Sign:
    """Send the sign of every number, and the mean magnitude as their scale. It is biased.

    Attributes:
        majority: send no scale; the server steps along the sign that most clients have, by weight (signSGD with
            majority vote). The step then has the length sqrt(n) whatever the updates are, and tells nothing of noise.
    """

    majority: bool = False
    is_unbiased = False

    @property
    def keeps_length(self) -> bool:
        """Whether the mean of what is decoded is in the unit of updates."""
        return not self.majority

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """The scale (1,), or nothing, and the signs, packed; 0 counts as positive."""
        signs = pack((vector >= 0).long(), 1)
        scale = vector.double().abs().sum() / max(len(vector), 1)
        return scale.to(vector)[None][: self.length(len(vector))], {"signs": signs}

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """Sign times scale."""
        signs = unpack(side["signs"], 1, n).to(vector) * 2 - 1
        return signs if self.majority else signs * vector

    def aggregated(self, mean: Tensor) -> Tensor:
        """What most clients say, 0 where they are undecided; the mean without a vote."""
        return mean.sign() if self.majority else mean

    def length(self, n: int) -> int:
        """One scale, or none."""
        return 0 if self.majority else 1

    def fields(self, n: int) -> dict[str, Field]:
        """One bit a number, filled up to a byte."""
        return {"signs": (torch.uint8, packed_bytes(n, 1))}

    def worst_error(self, n: int) -> float:
        """1 - 1/n of a vector with one number that is not 0; without a scale there is no bound."""
        return math.inf if self.majority else 1 - 1 / max(n, 1)
