"""Keys between two nodes: X25519 agrees on a secret, HKDF makes a key of it, ChaCha20-Poly1305 seals with that key.

All of it is `cryptography`'s. A private key is 32 random bytes and lives for one session.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY = 32
"""Bytes of a key, private or public, of a seed and of a digest."""
TAG = 16
"""Bytes that a sealed text is longer than the text."""


def new_secret() -> bytes:
    """A private key or a seed: 32 bytes of the system's randomness, never of a run's seed."""
    return os.urandom(KEY)


def public_key(private: bytes) -> bytes:
    """The public key (32 bytes) of a private key (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed_key(private: bytes, other: bytes, purpose: str) -> bytes:
    """The key (32 bytes) that the owners of two key pairs share, and nobody else, for one purpose.

    Args:
        private: the own private key.
        other: the other's public key.
        purpose: in words; other words give an unrelated key.

    Raises:
        ValueError: the public key is none, or one with which every private key agrees on the same secret.
    """
    secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
    return HKDF(algorithm=SHA256(), length=KEY, salt=None, info=f"fedbatch {purpose}".encode()).derive(secret)


def seal(key: bytes, text: bytes) -> bytes:
    """A text that only the owner of the key can read and make. A key seals one text, so the nonce is constant."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), text, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    """The text that was sealed.

    Raises:
        ValueError: it was not sealed with this key, or was changed since.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, None)
    except InvalidTag:
        raise ValueError("was not sealed with this key, or was changed since") from None


def digest(text: bytes) -> bytes:
    """SHA-256 (32 bytes), by which a secret is known again without being told."""
    hashed = Hash(SHA256())
    hashed.update(text)
    return hashed.finalize()
