import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from fedbatch.privacy.chacha20 import words

CPU = torch.device("cpu")
KEY = bytes(range(32))


def keystream(key, count):
    """Of an implementation that others have checked."""
    stream = Cipher(algorithms.ChaCha20(key, b"\0" * 16), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(8 * count)), np.int64)


def test_the_first_block_is_that_of_the_standard():
    """RFC 8439, appendix A.1, test vector 1: key and nonce of zeros."""
    expected = (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert words(bytes(32), 0, 8, CPU).numpy().tobytes().hex() == expected


@pytest.mark.parametrize("start, count", [(0, 8), (0, 1), (3, 2), (5, 11), (8, 0), (1000, 70_001)])
def test_the_keystream_is_that_of_openssl(start, count):
    assert np.array_equal(words(KEY, start, count, CPU).numpy(), keystream(KEY, start + count)[start:])


def test_blocks_beyond_two_billion_have_counters_of_their_own():
    there = 8 * 2**31
    cipher = Cipher(algorithms.ChaCha20(KEY, (2**31).to_bytes(4, "little") + bytes(12)), mode=None).encryptor()
    expected = np.frombuffer(cipher.update(bytes(128)), np.int64)
    assert np.array_equal(words(KEY, there, 16, CPU).numpy(), expected)


def test_every_bit_of_the_key_matters():
    first = words(KEY, 0, 4096, CPU).numpy()
    for bit in range(256):
        other = (int.from_bytes(KEY, "little") ^ (1 << bit)).to_bytes(32, "little")
        differing = np.unpackbits((words(other, 0, 64, CPU).numpy() ^ first[:64]).view(np.uint8)).mean()
        assert abs(differing - 0.5) < 0.05
