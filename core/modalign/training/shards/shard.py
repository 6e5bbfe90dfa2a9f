"""What a shard is: one file of a streamed table, cut into blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Shard(Protocol):
    """One file."""

    path: Path
    columns: list[str]
    blocks: list[int]
    """Rows of each block: what is read together."""
    weights: list[int]
    """Roughly the bytes that each block takes in memory."""

    def values(self, block: int, column: str) -> Sequence[Any]:
        """The values of a block, read when they are asked for."""
        ...

    def filled(self, block: int, column: str, literal: bool) -> np.ndarray:
        """By row of a block: whether it holds anything; ``(n,)`` bool."""
        ...

    def sizes(self, block: int, column: str, literal: bool) -> np.ndarray:
        """By row of a block: roughly its bytes, -1 where a file must be asked; ``(n,)`` int64."""
        ...

    def digest(self) -> bytes:
        """Changes when the file does."""
        ...


def every(rows: int) -> np.ndarray:
    """``(rows,)`` True, without the memory."""
    return np.broadcast_to(np.True_, rows)


def sample_digest(path: Path) -> bytes:
    """A file's size, first and last bytes: it may be far too large to be read whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, size - (1 << 16)))
        return f"{path.name} {size} ".encode() + head + file.read(1 << 16)
