"""Derived randomness: every draw is a pure function of (run seed, purpose, round, client, slot).

Nothing in fedbatch holds a random generator between two uses. Hence executors and runtimes agree, the order in which
replies arrive cannot matter, and a resumed run draws what the unbroken run would have drawn.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]

# The odd constants of the SplitMix64 finaliser (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
# generators").
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def key(seed: int, purpose: str, *numbers: int) -> int:
    """A 64-bit key for one purpose, e.g. ``key(seed, "batch", round)``.

    >>> key(0, "batch", 1) == key(0, "batch", 1), key(0, "batch", 1) == key(0, "cohort", 1)
    (True, False)
    """
    text = "/".join([purpose, str(seed), *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator for one purpose; the same arguments give the same stream."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *numbers)))


def bits(key_: int, clients: Ints, slots: Ints) -> Bits:
    """Independent uniform 64-bit words, one for each (client, slot); broadcasts like NumPy.

    A hash and not a stream, so that a cohort of thousands of clients is drawn in a few array operations.
    """
    with np.errstate(over="ignore"):
        word = _mix(np.uint64(key_) + _GOLDEN * (clients.astype(np.uint64) + np.uint64(1)))
        return _mix(word + _GOLDEN * (slots.astype(np.uint64) + np.uint64(1)))


def uniforms(key_: int, clients: Ints, slots: Ints) -> npt.NDArray[np.float64]:
    """The same as numbers in [0, 1)."""
    return np.asarray((bits(key_, clients, slots) >> np.uint64(11)) / 2.0**53)


def _mix(word: Bits) -> Bits:
    word = (word ^ (word >> np.uint64(30))) * _MIX1
    word = (word ^ (word >> np.uint64(27))) * _MIX2
    return word ^ (word >> np.uint64(31))
