"""The noise of the last rounds, from which that of the next one follows where noise is correlated.

Whoever has it can take the noise away again, so it is no released value: in a checkpoint it is encrypted with the
secret of the run. Kept in float32, because what follows from a rounded value is noise as good as before: every row
keeps fresh noise of its own in float64, and the rounding of older noise moves it by 1e-7 of a standard deviation.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.errors import ConfigError
from fedbatch.privacy.banded import INDEPENDENT, Coefficients, variance
from fedbatch.privacy.randomness import Randomness


@dataclass(frozen=True)
class NoiseHistory:
    """The strategy of a run and its last noise, in units of ``sigma C``.

    Attributes:
        coefficients: c_0 .. c_(b-1); ``(1.0,)`` for independent noise. A resumed run keeps those that it began with.
        noises: the last ``y``, at most b - 1, each float32 (d,), newest first; if sealed, one uint8 (n,) of them all.
        seal: keyed digest of what is sealed; empty while it is open.
    """

    coefficients: Coefficients = INDEPENDENT
    noises: tuple[Tensor, ...] = ()
    seal: str = ""

    def next(self, fresh: Tensor) -> tuple[Tensor, "NoiseHistory"]:
        """The noise (d,) of the next round from standard normal draws (d,), which are overwritten, and what is kept.

        ``y_t = (z_t - c_1 y_(t-1) - ... - c_(b-1) y_(t-b+1)) / c_0``
        """
        first, *others = self.coefficients
        if not others:
            return fresh, self
        for coefficient, noise in zip(others, self.noises, strict=False):  # the first rounds have fewer before them
            fresh.sub_(noise.to(fresh.device), alpha=coefficient)
        fresh.div_(first)
        return fresh, replace(self, noises=(fresh.float(), *self.noises)[: len(others)])

    def variance(self, round_: int) -> float:
        """Variance of each coordinate of the noise of a round, in units of ``(sigma C)^2``."""
        return variance(self.coefficients, round_)

    def name(self, randomness: Randomness) -> str:
        """What tells this history from others where a release is named; nothing while there is none.

        A keyed digest of the last noise: a bare hash would confirm a guess of it, and with it of what it hid.
        """
        return f"-{_digest(randomness, self.noises[0].cpu().numpy().tobytes())}" if self.noises else ""

    def sealed(self, randomness: Randomness) -> "NoiseHistory":
        """The same, encrypted; equal histories are equal when sealed."""
        if not self.noises:
            return self
        content = torch.stack([noise.cpu() for noise in self.noises]).numpy().tobytes()
        seal = _digest(randomness, content)
        hidden = np.frombuffer(bytearray(randomness.cipher(content, "noise history", seal)), dtype=np.uint8)
        return replace(self, noises=(torch.from_numpy(hidden),), seal=seal)

    def opened(self, randomness: Randomness, like: Tensor) -> "NoiseHistory":
        """The same, decrypted, as vectors of the length and on the device of ``like`` (d,).

        Raises:
            ConfigError: the secret is not the one it was sealed with.
        """
        if not self.seal:
            return self
        content = randomness.cipher(self.noises[0].numpy().tobytes(), "noise history", self.seal)
        if _digest(randomness, content) != self.seal:
            raise ConfigError(
                "resume: the noise of earlier rounds cannot be read with this privacy.secret_file; give the file with "
                "which the run began"
            )
        rows = torch.from_numpy(np.frombuffer(bytearray(content), dtype=np.float32)).view(-1, like.numel())
        return replace(self, noises=tuple(rows.to(like.device)), seal="")


UNCORRELATED = NoiseHistory()


def _digest(randomness: Randomness, content: bytes) -> str:
    return randomness.digest(("noise history",), [content])
