"""ChaCha20 (RFC 8439) in tensor arithmetic: the keystream of a 256-bit key, drawn on the device where it is used.

Blocks are computed side by side, so that a GPU fills a vector of noise in milliseconds where the host takes seconds.
"""

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.transfer import to_device

CONSTANTS = b"expand 32-byte k"
DOUBLE_ROUNDS = 10
WORDS = 8
"""64-bit words of a block."""


def words(key: bytes, start: int, count: int, device: torch.device) -> Tensor:
    """Words ``start`` to ``start + count`` (count,) of the keystream of a key, nonce 0, as int64.

    Args:
        key: 32 bytes.
        start: at least 0; ``start + count`` is below 2^35, after which the block counter would begin again.
        count: at least 0.
        device: where to compute.
    """
    first, last = start // WORDS, -(-(start + count) // WORDS)
    numbers = np.frombuffer(bytearray(CONSTANTS + key + bytes(16)), np.int32)
    state = to_device(numbers, device)[:, None].repeat(1, last - first)  # (16, blocks)
    state[12] = torch.arange(first, last, device=device).to(torch.int32)
    a, b, c, d = state.clone().view(4, 4, -1).unbind()
    for _ in range(DOUBLE_ROUNDS):
        _quarter_rounds(a, b, c, d)
        b, c, d = (row.roll(-by, dims=0) for row, by in ((b, 1), (c, 2), (d, 3)))  # diagonals become columns
        _quarter_rounds(a, b, c, d)
        b, c, d = (row.roll(by, dims=0) for row, by in ((b, 1), (c, 2), (d, 3)))
    state += torch.cat([a, b, c, d])
    return state.T.flatten().view(torch.int64)[start - WORDS * first :][:count]


def _quarter_rounds(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> None:
    """Four quarter rounds at once, one in each column of the rows (4, blocks), in place."""
    for first, second, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        first += second
        third ^= first
        low = (third >> (32 - by)) & (2**by - 1)  # the shift copies the sign
        third.bitwise_left_shift_(by).bitwise_or_(low)
