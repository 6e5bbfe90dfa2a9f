"""Which rows an epoch visits, in which order: a function of seed, stage and epoch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable; equal parts give equal seeds everywhere."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


class Epochs:
    """Batches of row numbers over shuffled epochs of one table or a weighted mixture.

    An epoch has as many rows as the tables together. A table of share ``w`` gives that part of
    them: each of its rows equally often, give or take one. Position needs no state: batch ``b`` of
    epoch ``e`` is always the same.

    Inputs:
        tables: usable rows, by table.
        weights: a share for each table; None = its number of rows.
    """

    def __init__(
        self, tables: Sequence[Sequence[int]], weights: Sequence[float | None], batch: int, *seed: object
    ) -> None:
        self.tables = [np.asarray(rows, dtype=np.int64) for rows in tables]
        self.size = sum(len(rows) for rows in self.tables)
        shares = [
            len(r) if w is None else w * (len(r) > 0) for r, w in zip(self.tables, weights, strict=True)
        ]
        total = sum(shares) or 1
        ends = np.floor(np.cumsum(shares) / total * self.size + 0.5).astype(int)
        self.counts = np.diff(ends, prepend=0)
        self.batch = batch
        self.seed = seed

    @property
    def batches(self) -> int:
        """Batches per epoch; the last may be short."""
        return -(-self.size // self.batch)

    def rows(self, epoch: int) -> np.ndarray:
        """The epoch's rows in order."""
        random = np.random.default_rng(seed_of(*self.seed, "epoch", epoch))
        parts = []
        for table, count in zip(self.tables, self.counts, strict=True):
            passes = [random.permutation(table) for _ in range(-(-count // max(1, len(table))))]
            parts.append(np.concatenate([table[:0], *passes])[:count])
        return random.permutation(np.concatenate(parts))

    def from_batch(self, epoch: int, first: int = 0) -> Iterator[np.ndarray]:
        """The epoch's batches from number ``first`` on."""
        rows = self.rows(epoch)
        for start in range(first * self.batch, self.size, self.batch):
            yield rows[start : start + self.batch]


def choose(count: int, *seed: object) -> int:
    """One of ``count`` alternatives, uniformly, the same for the same seed."""
    return seed_of(*seed) % count
