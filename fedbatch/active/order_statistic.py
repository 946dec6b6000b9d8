"""The k-th smallest of numbers that lie with many owners, from counts alone: exact, and secure-summable.

Every example has a 62-bit key: the bits of its score, which order as the score does, then a salted hash that breaks
ties. Narrowing a histogram bin by bin finds the key of the k-th smallest in a few rounds of counts.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints, bits

Floats = npt.NDArray[np.floating]

KEY_BITS = 62
TIE_BITS = 32
LARGEST = (1 << KEY_BITS) - 1
COUNTS_A_MESSAGE, MOST_BITS = 1 << 12, 8

Count = Callable[[Ints, int, int], Ints]
"""From (lows (G,), width, bins) to counts (G, bins) of keys in ``lows[g] + b * width ... + width - 1``."""


def score_keys(scores: Floats, clients: Ints, slots: Ints, salt: int) -> Ints:
    """Keys (n,) in the order of ``scores`` (n,), which are in [0, 1]; equal scores are ordered by a salted hash.

    >>> first, second = score_keys(np.array([0.25, 0.5]), np.array([0, 0]), np.array([0, 1]), 7)
    >>> bool(0 <= first < second <= LARGEST)
    True
    """
    ordered = scores.astype(np.float32).view(np.int32).astype(np.int64)  # floats that are not negative sort as integers
    return (ordered << TIE_BITS) | (bits(salt, clients, slots) >> np.uint64(64 - TIE_BITS)).astype(np.int64)


def random_keys(clients: Ints, slots: Ints, salt: int) -> Ints:
    """Uniform keys (n,)."""
    return (bits(salt, clients, slots) >> np.uint64(64 - KEY_BITS)).astype(np.int64)


def smallest(count: Count, wanted: Ints) -> Ints:
    """Key of the ``wanted[g]``-th smallest in each group (G,); every group has that many, and ``wanted >= 1``.

    >>> keys = np.array([5, 9, 2, 70])
    >>> smallest(lambda lows, width, bins: histogram(keys, np.zeros(4, int), lows, width, bins), np.array([3]))
    array([9])
    """
    *_, (lows, _, _) = narrowed(count, wanted)
    return lows


def threshold(count: Count, wanted: Ints) -> Ints:
    """A key with exactly ``wanted[g]`` keys up to it in each group (G,); fewer rounds than `smallest` needs."""
    for lows, width, separated in narrowed(count, wanted):
        largest = lows + (width - 1)
        if separated:
            break
    return largest


def narrowed(count: Count, wanted: Ints) -> Iterator[tuple[Ints, int, bool]]:
    """Bins (G,) with the ``wanted``-th smallest key, finer and finer down to single keys.

    Yields:
        Where the bins begin, their width, and whether in every group exactly the wanted keys lie up to the bin's end.
    """
    lows, left, width_bits, rows = np.zeros(len(wanted), np.int64), wanted, KEY_BITS, np.arange(len(wanted))
    step = int(np.clip(np.log2(COUNTS_A_MESSAGE / max(1, len(wanted))), 1, MOST_BITS))
    while width_bits:
        step = min(step, width_bits)
        width_bits -= step
        below = count(lows, 1 << width_bits, 1 << step).cumsum(axis=1)
        bin_ = (below < left[:, None]).sum(axis=1)
        separated = bool((below[rows, bin_] == left).all())
        left = left - np.where(bin_ > 0, below[rows, np.maximum(bin_ - 1, 0)], 0)
        lows = lows + (bin_ << width_bits)
        yield lows, 1 << width_bits, separated


def histogram(keys: Ints, groups: Ints, lows: Ints, width: int, bins: int) -> Ints:
    """Counts (G, bins) of keys (n,) of groups (n,); what lies outside of the bins or has no group is not counted."""
    counted = groups < len(lows)
    own = groups[counted]
    bin_ = (keys[counted] - lows[own]) // width
    inside = (bin_ >= 0) & (bin_ < bins)
    flat = np.bincount(own[inside] * bins + bin_[inside], minlength=len(lows) * bins)
    return flat.reshape(len(lows), bins)
