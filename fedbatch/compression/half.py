"""Numbers in 16 bits on the wire: float16 or bfloat16, rounded at random so that nothing is lost on average."""

import logging
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fedbatch.compression.stage import Field, Side, uniform

log = logging.getLogger("fedbatch")

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Half:
    """Send every number in 16 bits, rounded to one of its two neighbours with the probability of its distance.

    float16 has 11 bits and holds at most 65504; a client with a larger number is left out, as one whose update is not
    finite. bfloat16 has 8 bits and the range of float32. Beyond these limits it is unbiased.

    Attributes:
        dtype: "float16" or "bfloat16".
    """

    dtype: str = "bfloat16"
    is_unbiased = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"compression: dtype of Half must be float16 or bfloat16 (got {self.dtype!r})")

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """No vector goes on; the numbers are sent in 16 bits."""
        limits = torch.finfo(DTYPES[self.dtype])
        values = vector.double()
        exponent = torch.frexp(values).exponent.clamp(min=_exponent(limits.tiny))
        unit = torch.ldexp(torch.ones_like(values), exponent - 1) * limits.eps  # between two neighbours
        rounded = ((values / unit + uniform(values, key)).floor() * unit).to(DTYPES[self.dtype])
        if not rounded.isfinite().all() and vector.isfinite().all():
            _tell_of_overflow(self.dtype, limits.max)
        return vector[:0], {"values": rounded}

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """The numbers in the vector's dtype."""
        return side["values"].to(vector)

    def length(self, n: int) -> int:
        """Nothing goes on."""
        return 0

    def fields(self, n: int) -> dict[str, Field]:
        """Two bytes a number."""
        return {"values": (DTYPES[self.dtype], n)}

    def worst_error(self, n: int) -> float:
        """Half a unit at most on average, relative to a number at the lower end of its binade."""
        return float(torch.finfo(DTYPES[self.dtype]).eps ** 2) / 4


def _exponent(tiny: float) -> int:
    """Of the smallest normal number, as `torch.frexp` counts it."""
    return int(torch.frexp(torch.tensor(tiny, dtype=torch.float64)).exponent)


@lru_cache(maxsize=8)
def _tell_of_overflow(dtype: str, largest: float) -> None:
    log.warning(
        "compression: an update has numbers beyond %g, which is the largest in %s, and its client is left out "
        "(told once; see excluded_clients); use dtype=bfloat16 or a lower learning rate",
        largest,
        dtype,
    )
