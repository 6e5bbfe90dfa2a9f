"""Damages bytes: cuts, flips, splices, words of the format, extreme numbers, repetition, nesting."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence

MOST = 1 << 20
"""No input grows beyond that."""
INTEGERS = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
NUMBERS = (
    b"0", b"-1", b"1", b"255", b"256", b"65536", b"2147483647", b"-2147483648", b"4294967295", b"999999999",
    b"9223372036854775807", b"18446744073709551616", b"1e308", b"1e999", b"-0.0", b"nan", b"NaN", b"Infinity",
    b"-inf", b"0x7fffffff", b"1" * 400, b"9" * 5000, b"1.5", b"\xd9\xa1\xd9\xa2",
)  # fmt: skip
WORDS = (
    b"", b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r\n", b"\t", b" ", b'"', b"'",
    b"\\", b"/", b"../../", b"/dev/zero", b"fifo", b"a\0b", b"%s%n", b"${HOME}", b"~", b"null", b"true", b"{}", b"[]",
    "é".encode(), "世界🎵".encode(), "\u202e".encode(), "e\u0301".encode() * 20,
)  # fmt: skip
BRACKETS = (b"[", b"{", b"(", b"<a>", b'{"a":', b"[[", b"- ", b"'", b"!")


def damaged(data: bytes, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> bytes:
    """One to sixteen changes, often near the beginning, where headers are.

    Inputs:
        other: another whole input, for splices.
        tokens: words of the format.
    """
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4, 16))):
        span = len(content) if draw.random() < 0.6 else min(len(content), 256)
        at = draw.randrange(span + 1)
        draw.choice(CHANGES)(content, at, other, tokens, draw)
        if len(content) > MOST:
            del content[MOST:]
    return bytes(content)


def _flip(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    if at < len(c):
        c[at] ^= 1 << draw.randrange(8)


def _byte(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    c[at : at + 1] = bytes([draw.choice((0, 1, 32, 48, 57, 127, 128, 255, draw.randrange(256)))])


def _cut(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    if draw.random() < 0.4:
        del c[at:]
    else:
        del c[at : at + draw.choice((1, 1, 2, 4, 8, draw.randrange(1, 200)))]


def _word(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    word = draw.choice(tokens) if tokens and draw.random() < 0.7 else draw.choice(WORDS)
    c[at : at + (len(word) if draw.random() < 0.5 else 0)] = word


def _integer(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    size = draw.choice((1, 2, 4, 4, 8))
    value = draw.choice(INTEGERS) & ((1 << 8 * size) - 1)
    c[at : at + size] = value.to_bytes(size, draw.choice(("little", "big")))


def _float(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    value = draw.choice((float("nan"), float("inf"), -0.0, 1e-45, 3.4e38, -1.0))
    c[at : at + 4] = struct.pack(draw.choice("<>") + "f", value)


def _number(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    found = re.compile(rb"-?\d+(\.\d+)?").search(c, at)
    if found:
        c[found.start() : found.end()] = draw.choice(NUMBERS)


def _repeat(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    part = bytes(c[at : at + draw.choice((1, 4, 16, 64, 512))])
    times = draw.choice((1, 2, 8, 50, 50, 1000 if draw.random() < 0.1 else 3))
    c[at:at] = part * times


def _splice(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    start = draw.randrange(len(other) + 1)
    if draw.random() < 0.5:
        c[at:] = other[start:]
    else:
        c[at:at] = other[start : start + draw.randrange(1, 400)]


def _move(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    part = bytes(c[at : at + draw.randrange(1, 100)])
    del c[at : at + len(part)]
    to = draw.randrange(len(c) + 1)
    c[to:to] = part


def _nest(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    depth = draw.choice((3, 30, 200, 1100, 20_000 if draw.random() < 0.1 else 10))
    c[at:at] = draw.choice(BRACKETS) * depth


def _fill(c: bytearray, at: int, other: bytes, tokens: Sequence[bytes], draw: random.Random) -> None:
    size = draw.choice((1, 4, 16, 64))
    c[at : at + size] = bytes([draw.choice((0, 255, 48, 32))]) * min(size, max(len(c) - at, 1))


CHANGES = (
    _flip, _flip, _byte, _byte, _cut, _word, _word, _integer, _float, _number, _repeat, _splice, _move, _nest, _fill,
)  # fmt: skip
