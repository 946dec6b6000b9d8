"""Keys, shares and masks by other implementations, and sums in plain integers."""

import hashlib
import hmac
from itertools import combinations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedbatch.masking import keys, masks, shares
from fedbatch.privacy import chacha20

SECRETS = [hashlib.sha256(bytes([i])).digest() for i in range(8)]
SIX = range(6)


def hkdf(secret, info):
    """RFC 5869 with SHA-256, no salt, one block."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def test_two_nodes_agree_on_hkdf_of_the_x25519_secret_and_on_another_key_for_another_purpose():
    one, two = SECRETS[:2]
    raw = X25519PrivateKey.from_private_bytes(one).exchange(X25519PublicKey.from_public_bytes(keys.public_key(two)))
    agreed = keys.agreed_key(one, keys.public_key(two), "a test")
    assert agreed == hkdf(raw, b"fedbatch a test") == keys.agreed_key(two, keys.public_key(one), "a test")
    assert agreed != keys.agreed_key(one, keys.public_key(two), "another test")


@pytest.mark.parametrize("key", [bytes(32), (1).to_bytes(32, "little"), bytes(31)])
def test_a_key_with_which_all_agree_on_the_same_secret_is_refused(key):
    with pytest.raises(ValueError, match="."):
        keys.agreed_key(SECRETS[0], key, "a test")


def test_what_is_sealed_is_read_with_its_key_alone_and_not_when_changed():
    sealed = keys.seal(SECRETS[0], b"two shares")
    assert len(sealed) == 10 + keys.TAG
    assert keys.unseal(SECRETS[0], sealed) == b"two shares"
    for key, text in ((SECRETS[1], sealed), (SECRETS[0], sealed[:-1] + bytes([sealed[-1] ^ 1]))):
        with pytest.raises(ValueError, match="not sealed with this key, or was changed"):
            keys.unseal(key, text)


def test_secrets_are_never_the_same_twice():
    assert len({keys.new_secret() for _ in range(100)}) == 100
    assert keys.digest(b"x") == hashlib.sha256(b"x").digest()


def test_any_threshold_of_shares_give_the_secret_back_and_fewer_do_not():
    dealt = shares.split(SECRETS[0], 4, 6)
    for chosen in combinations(SIX, 4):
        assert shares.combine({place: dealt[place] for place in chosen}) == SECRETS[0]
    for chosen in combinations(SIX, 3):
        assert shares.combine({place: dealt[place] for place in chosen}) != SECRETS[0]
    again = shares.split(SECRETS[0], 4, 6)
    assert not set(again) & set(dealt)  # a share tells nothing of the secret: each split draws its own


@pytest.mark.parametrize("bits", [31, 32, 33, 48])
def test_a_stream_is_the_chacha20_keystream_and_looks_uniform(bits):
    found = masks.stream(SECRETS[0], 40_000, bits)
    words = chacha20.words(SECRETS[0], 0, 40_000, torch.device("cpu")).numpy().view(np.uint64)
    raw = words.view(np.uint32)[:40_000].astype(np.uint64) if bits <= 32 else words
    assert np.array_equal(found, raw % np.uint64(2**bits))
    counts = np.bincount((found >> np.uint64(bits - 6)).astype(int), minlength=64)
    assert 1e-6 < stats.chisquare(counts).pvalue < 1 - 1e-6


@pytest.mark.parametrize("bits", [8, 32, 48])
def test_numbers_are_kept_from_the_least_to_the_largest(bits):
    half = 2.0 ** (bits - 1)
    values = np.array([-half, -half + 1, -1, 0, 1, half - 1])
    assert np.array_equal(masks.to_numbers(masks.to_words(values, bits), bits), values)
    assert masks.to_numbers(masks.to_words(np.array([half]), bits), bits) == -half  # wraps around


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3), min_size=2, max_size=6),
    missing=st.sets(st.integers(0, 5)),
    bits=st.sampled_from([8, 24, 32, 48]),
)
def test_masks_of_all_cancel_and_those_of_the_missing_are_the_ones_that_are_left(values, missing, bits):
    nodes = range(len(values))
    private = [hashlib.sha256(bytes([9, i])).digest() for i in nodes]

    def pair(i, j):
        return masks.sign(i, j), keys.agreed_key(private[i], keys.public_key(private[j]), "masks")

    masked = [
        masks.to_words(np.array(row, float), bits)
        + masks.sum_of_masks([(1, SECRETS[i]), *(pair(i, j) for j in nodes if j != i)], 3, bits)
        for i, row in enumerate(values)
    ]
    there = [i for i in nodes if i not in missing]
    left = [(1, SECRETS[i]) for i in there] + [pair(i, j) for i in there for j in nodes if j in missing]
    total = sum((masked[i] for i in there), np.zeros(3, np.uint64)) - masks.sum_of_masks(left, 3, bits)
    expected = [sum(values[i][c] for i in there) for c in range(3)]
    half = 2 ** (bits - 1)
    assert masks.to_numbers(total, bits).tolist() == [(v + half) % (2 * half) - half for v in expected]
