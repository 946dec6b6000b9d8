"""Whole numbers in as few bits each as they need."""

import numpy as np
import torch
from torch import Tensor


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` numbers of ``bits`` bits.

    >>> packed_bytes(3, 3)
    2
    """
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Bytes, uint8, of whole numbers (n,) in 0 .. 2^bits - 1, the lowest bit of each first.

    >>> unpack(pack(torch.tensor([5, 0, 7]), 3), 3, 3).tolist()
    [5, 0, 7]
    """
    values = codes.cpu().numpy()
    each = (values[:, None] >> np.arange(bits) & 1).astype(np.uint8)
    return torch.from_numpy(np.packbits(each, bitorder="little")).to(codes.device)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The whole numbers (count,) in int64.

    Raises:
        ValueError: the bits after the last number are not zero.
    """
    every = np.unpackbits(packed.cpu().numpy(), bitorder="little")
    if every[count * bits :].any():
        raise ValueError("bits after the last packed number must be zero")
    values = every[: count * bits].reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits))
    return torch.from_numpy(values).to(packed.device)
