"""Masks: whole numbers that look random, and cancel when the masked vectors of all nodes are added up.

Node i adds a mask of its own, and for each other node j the stream of the key that both share: with a plus where i < j,
with a minus where i > j. Modulo ``2^bits`` a masked vector is uniform, whatever it hides, to whoever lacks one of the
keys (Bonawitz et al. 2017).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

Words = np.ndarray[Any, np.dtype[np.uint64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def stream(key: bytes, count: int, bits: int) -> Words:
    """``count`` whole numbers, uniform modulo ``2^bits``: the ChaCha20 keystream of a key (32 bytes)."""
    word = np.dtype(np.uint32 if bits <= 32 else np.uint64)
    cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    words = np.frombuffer(cipher.update(bytes(count * word.itemsize)), word.newbyteorder("<"))
    return words.astype(np.uint64) & modulus_mask(bits)


def sign(own: int, other: int) -> int:
    """With which sign the node at place ``own`` adds the mask that it shares with the one at ``other``."""
    return 1 if own < other else -1


def sum_of_masks(keys: Iterable[tuple[int, bytes]], count: int, bits: int) -> Words:
    """The sum (count,) of the streams of keys, each with its sign, modulo ``2^bits``."""
    total = np.zeros(count, np.uint64)
    for plus_or_minus, key in keys:
        if plus_or_minus > 0:
            total += stream(key, count, bits)
        else:
            total -= stream(key, count, bits)  # wraps around modulo 2^64, of which 2^bits is a divisor
    return total & modulus_mask(bits)


def to_words(values: Floats, bits: int) -> Words:
    """Whole numbers (n,), positive and negative, modulo ``2^bits``."""
    return values.astype(np.int64).astype(np.uint64) & modulus_mask(bits)


def to_numbers(words: Words, bits: int) -> Floats:
    """Numbers modulo ``2^bits`` as those in ``-2^(bits-1) .. 2^(bits-1) - 1``; exact, for ``bits`` up to 53."""
    half = np.uint64(1 << (bits - 1))
    return ((words + half) & modulus_mask(bits)).astype(np.float64) - float(half)


def modulus_mask(bits: int) -> np.uint64:
    """``2^bits - 1``; ``bits`` in 1 .. 63."""
    return np.uint64((1 << bits) - 1)
