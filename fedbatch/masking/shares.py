"""Shares of a secret: any ``threshold`` of them give it back, and fewer tell nothing (Shamir 1979).

The arithmetic is pycryptodome's, which shares 16 bytes at a time.
"""

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from fedbatch.masking import keys

SHARE = 32
"""Bytes of a share, and of the secret."""
HALF = SHARE // 2
SEALED = 2 * SHARE + keys.TAG
"""Bytes of two shares, one of each secret of a node, sealed for another."""
UNREADABLE = bytes(SHARE)
"""In the place of a share that its reader could not unseal; a share is so by chance once in 2^256."""


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """``count`` shares (32 bytes each) of a secret (32 bytes), of which ``threshold``, 1 .. count, give it back."""
    halves = [Shamir.split(threshold, count, secret[start : start + HALF], ssss=False) for start in (0, HALF)]
    return [left + right for (_, left), (_, right) in zip(*halves, strict=True)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret (32 bytes) of which these are the shares, by place from 0: exactly ``threshold`` of them."""
    halves = [
        Shamir.combine([(place + 1, share[start : start + HALF]) for place, share in shares.items()], ssss=False)
        for start in (0, HALF)
    ]
    return b"".join(halves)
