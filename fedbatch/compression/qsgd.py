"""QSGD: each number rounded at random to one of a few shares of the length (Alistarh et al. 2017)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.compression.packing import pack, packed_bytes, unpack
from fedbatch.compression.stage import Field, Side, uniform


@dataclass(frozen=True)
class QSGD:
    """Send ``|v| * sign(v_i) * level_i / levels``, with level_i = |v_i| / |v| * levels rounded up or down at random.

    It is unbiased: a number between two levels goes to the upper one with the probability of its distance from the
    lower. A level and its sign take ``ceil(log2(2 levels + 1))`` bits; the lengths |v| are the vector that goes on.

    Attributes:
        levels: s >= 1, besides 0.
        bucket: numbers that share one length |v|; null = all, which is noisiest.
    """

    levels: int = 7
    bucket: int | None = 512
    is_unbiased = True

    def __post_init__(self) -> None:
        if not 1 <= self.levels < 2**15:
            raise ValueError(f"compression: levels of QSGD must be in [1, 32767] (got {self.levels})")
        if self.bucket is not None and self.bucket < 1:
            raise ValueError(f"compression: bucket of QSGD must be at least 1, or null (got {self.bucket})")

    @property
    def bits(self) -> int:
        """Of a level with its sign."""
        return (2 * self.levels).bit_length()

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """The length of each bucket, and the levels, packed."""
        squares = vector.new_zeros(self.length(len(vector)), dtype=torch.float64)
        buckets = self._buckets(vector)
        norms = squares.index_add_(0, buckets, vector.double().square()).sqrt()
        each = norms[buckets]
        scaled = torch.where(each > 0, vector.abs() / each * self.levels, 0).to(vector)
        level = (scaled + uniform(vector, key)).floor().clamp(max=self.levels)
        codes = (level * vector.sign()).nan_to_num().long() + self.levels
        return norms.to(vector), {"levels": pack(codes, self.bits)}

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """Length times level over levels."""
        codes = unpack(side["levels"], self.bits, n)
        if n and int(codes.max()) > 2 * self.levels:
            raise ValueError(f"levels of QSGD must be in -{self.levels} .. {self.levels}")
        return vector[self._buckets(codes)] * (codes - self.levels).to(vector) / self.levels

    def length(self, n: int) -> int:
        """One length a bucket."""
        return -(-n // (self.bucket or max(n, 1)))

    def fields(self, n: int) -> dict[str, Field]:
        """Bits of all levels, filled up to a byte."""
        return {"levels": (torch.uint8, packed_bytes(n, self.bits))}

    def worst_error(self, n: int) -> float:
        """min(n / s^2, sqrt(n) / s) of a bucket (Alistarh et al. 2017, lemma 3.1)."""
        size = min(n, self.bucket or n)
        return min(size / self.levels**2, math.sqrt(size) / self.levels)

    def _buckets(self, like: Tensor) -> Tensor:
        """The bucket (n,) of each number."""
        return torch.arange(len(like), device=like.device) // (self.bucket or max(len(like), 1))
