"""Keyed random numbers: a function of their purpose, so no generator state can be lost.

Every recipe below is sealed: data sets, runs and readings depend on its bytes. Another recipe is
another function; these stay as they are.
generator        training, sweeps, reports: typed parts, 63 bits
text_generator   rendered and degraded images: parts as text, 128 bits
fixed_generator  choices that are the same everywhere, under a number
share_of         the part of a data set that a word or sample belongs to
seed_of          sampled generation of a text, by the image
"""

import hashlib

import numpy as np

_SEPARATOR = "\x1f"


def key_of(*parts: int | str) -> int:
    """Return a 63-bit key of the parts, equal on every machine, Python and process."""
    text = _SEPARATOR.join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """Return a NumPy generator (Philox) for the random numbers that the parts name."""
    return fixed_generator(key_of(*parts))


def fixed_generator(key: int) -> np.random.Generator:
    """Return a NumPy generator (Philox) under a key that is a plain number."""
    return np.random.Generator(np.random.Philox(key=key))


def text_generator(*parts: object) -> np.random.Generator:
    """Return a NumPy generator (Philox) keyed by the parts as text: 1 and "1" are one key."""
    return fixed_generator(int.from_bytes(digest_of(*map(str, parts)), "little"))


def digest_of(*parts: str, size: int = 16, salt: bytes = b"") -> bytes:
    """Return a hash of texts with `size` bytes; another salt gives independent hashes."""
    return hashlib.blake2b(_SEPARATOR.join(parts).encode(), digest_size=size, key=salt).digest()


def share_of(text: str, salt: str) -> float:
    """Return a number in [0, 1) that depends on the text and the salt alone."""
    return int.from_bytes(digest_of(text, size=8, salt=salt.encode()), "big") / 2**64


def seed_of(content: bytes) -> int:
    """Return a 56-bit seed of some bytes."""
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
