"""Refuses JSON lines that would bring Arrow's reader down, before it sees them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

MOST_DEPTH = 64
BLOCK = 1 << 24
_NULL = re.compile(rb"(?:\A|\n)[ \t\r]*null")
_KINDS = np.zeros(256, dtype=np.int8)
_KINDS[[ord("["), ord("{")]] = 1
_KINDS[[ord("]"), ord("}")]] = -1
_QUOTE, _LINE = 2, 3
_KINDS[ord('"')], _KINDS[ord("\n")] = _QUOTE, _LINE


def check_lines(path: Path) -> None:
    """Look through a file once, in blocks of whole lines.

    Raises:
        ValueError: if a line is ``null`` rather than an object, or values are nested too deeply.
    """
    depth = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            block += file.readline()
            if _NULL.search(block):
                raise ValueError("a line holds null instead of an object")
            depth = _deepest(block, depth)


def _deepest(block: bytes, depth: int) -> int:
    """How deep its end lies, at most, when its beginning lies ``depth`` deep."""
    block = block.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    kinds = _KINDS[np.frombuffer(block, dtype=np.uint8)]
    kinds = kinds[kinds != 0]
    quotes = np.cumsum(kinds == _QUOTE)
    before = np.maximum.accumulate(np.where(kinds == _LINE, quotes, 0))  # no string goes beyond its line
    steps = np.where((quotes - before) % 2 == 0, kinds, 0)
    depths = np.cumsum(np.where(abs(steps) == 1, steps, 0)) + depth
    # Arrow parses parts of a file on their own: what was closed before a part's beginning counts for nothing.
    above = depths - np.minimum.accumulate(np.minimum(depths, 0))
    if len(above) and above.max() > MOST_DEPTH:
        raise ValueError(f"values are nested more than {MOST_DEPTH} deep")
    return int(above[-1]) if len(above) else depth
