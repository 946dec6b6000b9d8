"""Keyed randomness of releases: what is drawn is a function of a secret and of what is released.

The key names the run, the client and a digest of its data, the round, the parameters, the attempt and the purpose; for
noise of the server, those whose contributions are summed. So an exact replay after a crash is the same release, charged
once, while noise is never used twice for different sums, whose difference would cancel it.
Whoever knows the secret has no barrier at all: without a secret file it follows from the run's seed, which is right for
a reproducible study and wrong for real data.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from fedbatch.core import private_file
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.chacha20 import words
from fedbatch.privacy.lattice import skellam

Floats = np.ndarray[Any, np.dtype[np.float64]]
GENERATORS = ("philox", "chacha20")
SECRET_BYTES = 32
CPU = torch.device("cpu")
log = logging.getLogger("fedbatch")
ON_DEVICE = 2**20
"""From so many draws on a GPU makes its own, and so many at a time."""


@dataclass(frozen=True)
class Randomness:
    """Uniform and normal draws by key.

    Attributes:
        secret: 32 bytes.
        run: identity of the run, so that two configs with one secret share no noise.
        generator: "philox" (NumPy; fast) or "chacha20" (cryptographic; ChaCha20 keystream).

    >>> source = Randomness(b"0" * 32, "run", "philox")
    >>> bool((source.uniform(3, "sample", 1) == source.uniform(3, "sample", 1)).all())
    True
    """

    secret: bytes
    run: str
    generator: str = "philox"

    def __post_init__(self) -> None:
        if self.generator not in GENERATORS:
            raise ConfigError(f"privacy.generator must be one of {', '.join(GENERATORS)} (got {self.generator!r})")

    def uniform(self, count: int, *what: object) -> Floats:
        """Uniform draws (count,) in [0, 1) for the use that ``what`` names."""
        if self.generator == "philox":
            return self._philox(what).random(count, dtype=np.float64)
        return (self._words(count, what) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int, *what: object, device: torch.device = CPU) -> Tensor:
        """Standard normal draws (count,), float64, for the use that ``what`` names.

        Many draws for a GPU are made on that ``device``, by ChaCha20 whichever generator is set: the key is as long,
        and the host would take seconds. They are other numbers than a CPU's, but for "chacha20", where they differ by
        rounding. Few draws are made on the host, in memory from which a GPU takes them without a wait.
        """
        if device.type == "cuda" and count >= ON_DEVICE:
            return self._normal_there(count, what, device)
        draws = self._normal_here(count, what)
        return draws.pin_memory() if device.type == "cuda" else draws

    def _normal_here(self, count: int, what: tuple[object, ...]) -> Tensor:
        if self.generator == "philox":
            return torch.from_numpy(self._philox(what).standard_normal(count))
        pairs = -(-count // 2)
        words = self._words(2 * pairs, what)
        unit = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # never 0, whose logarithm is infinite
        radius, angle = np.sqrt(-2 * np.log(unit[:pairs])), 2 * np.pi * unit[pairs:]
        return torch.from_numpy(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count])

    def _normal_there(self, count: int, what: tuple[object, ...], device: torch.device) -> Tensor:
        """As `_normal_here` by "chacha20": the first half of the words gives radii, the second angles."""
        key = self._key(what if self.generator == "chacha20" else ("chacha20", *what))
        pairs = -(-count // 2)
        normal = torch.empty(2 * pairs, dtype=torch.float64, device=device)
        for start in range(0, pairs, ON_DEVICE):
            size = min(ON_DEVICE, pairs - start)
            unit = (_unit(words(key, first + start, size, device)) for first in (0, pairs))
            radius, angle = next(unit).log_().mul_(-2).sqrt_(), next(unit).mul_(2 * torch.pi)
            torch.mul(radius, angle.cos(), out=normal[start : start + size])
            torch.mul(radius, angle.sin(), out=normal[pairs + start : pairs + start + size])
        return normal[:count]

    def skellam(self, count: int, variance: float, *what: object) -> Floats:
        """Whole numbers (count,) with Skellam noise of mean 0 and a variance > 0, for the use that ``what`` names."""
        return skellam(variance, self.uniform(count, *what))

    def digest(self, name: tuple[object, ...], parts: Iterable[bytes]) -> str:
        """A digest of ``parts`` that only whoever knows the secret could compute, under a name of its own."""
        found = hashlib.blake2b(key=self._key(("digest", *name)), digest_size=16)
        for part in parts:
            found.update(len(part).to_bytes(8, "little") + part)
        return found.hexdigest()

    def cipher(self, content: bytes, *what: object) -> bytes:
        """``content`` encrypted for the use that ``what`` names, or decrypted again; never use a name twice."""
        return (
            Cipher(algorithms.ChaCha20(self._key(("cipher", *what)), b"\0" * 16), mode=None).encryptor().update(content)
        )

    def _key(self, what: tuple[object, ...]) -> bytes:
        text = "\x1f".join(map(str, (self.run, *what)))
        return hashlib.blake2b(text.encode(), key=self.secret, digest_size=32).digest()

    def _philox(self, what: tuple[object, ...]) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self._key(what)[:16], "little")))

    def _words(self, count: int, what: tuple[object, ...]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        # Every key is used for one stream only, so the nonce may be constant.
        stream = Cipher(algorithms.ChaCha20(self._key(what), b"\0" * 16), mode=None).encryptor()
        return np.frombuffer(stream.update(bytes(8 * count)), dtype=np.uint64)


def _unit(words: Tensor) -> Tensor:
    """53 bits of each word (n,) as a number within (0, 1); never 0, whose logarithm is infinite."""
    return ((words >> 11) & (2**53 - 1)).double().add_(0.5).mul_(2.0**-53)


def secret_of(path: str | None, seed: int) -> bytes:
    """The secret in a file, made there with 32 random bytes if it does not exist; without a file, from the seed."""
    if path is None:
        return hashlib.blake2b(f"fedbatch/{seed}".encode(), digest_size=SECRET_BYTES).digest()
    file = Path(path).expanduser()
    if not file.exists():
        private_file.make(file, os.urandom(SECRET_BYTES))
    elif problem := private_file.exposed(file):
        log.warning("privacy.secret_file: %s", problem)
    secret = file.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"privacy.secret_file must hold {SECRET_BYTES} bytes (got {len(secret)}); delete it for a new one"
        )
    return secret


def fingerprint(params: Tensor) -> str:
    """Short hash of the parameters (d,) that a release is computed at."""
    return hashlib.blake2b(params.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()
