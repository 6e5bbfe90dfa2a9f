"""Seeds for everything random, from what it is for."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable; equal parts give equal seeds everywhere."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def choose(count: int, *seed: object) -> int:
    """One of ``count`` alternatives, uniformly, the same for the same seed."""
    return seed_of(*seed) % count
