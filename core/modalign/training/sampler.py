"""Which rows an epoch visits, in which order: a function of seed, stage and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .seeds import seed_of
from .stream_order import WholeOrder, WindowOrder

CHUNK = 65536
"""Rows of a mixture between two counts of what came from which table."""
BUCKETS = 50
"""Batches whose rows are sorted by size together."""


class Epochs:
    """Batches of row numbers over shuffled epochs of one table or a weighted mixture.

    An epoch has as many rows as the tables together. A table of share ``w`` gives that part of
    them: each of its rows equally often, give or take one. Position needs no state: batch ``b`` of
    epoch ``e`` is always the same.

    Inputs:
        tables: usable rows, by table.
        weights: a share for each table; None = its number of rows.
        orders: by table, how the rows of a streamed one are ordered; None if it is in memory.
        size_of: sizes of rows: batches then hold rows of like size.
    """

    def __init__(
        self,
        tables: Sequence[Sequence[int] | np.ndarray],
        weights: Sequence[float | None],
        batch: int,
        *seed: object,
        orders: Sequence[WindowOrder | None] = (),
        size_of: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.tables = [r if isinstance(r, range) else np.asarray(r, dtype=np.int64) for r in tables]
        self.size = sum(len(rows) for rows in self.tables)
        shares = [
            len(r) if w is None else w * (len(r) > 0) for r, w in zip(self.tables, weights, strict=True)
        ]
        total = sum(shares) or 1
        ends = np.floor(np.cumsum(shares) / total * self.size + 0.5).astype(int)
        self.counts = np.diff(ends, prepend=0)
        self.batch = batch
        self.seed = seed
        self.size_of = size_of
        self.streamed = any(order is not None for order in orders)
        self._orders = [
            order or WholeOrder(rows, *seed, i)
            for i, (order, rows) in enumerate(zip(orders or [None] * len(tables), self.tables, strict=True))
        ]
        self._used = np.flatnonzero(self.counts).tolist()
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def batches(self) -> int:
        """Batches per epoch; the last may be short."""
        return -(-self.size // self.batch)

    def rows(self, epoch: int) -> np.ndarray:
        """The epoch's rows in order, of tables in memory."""
        random = np.random.default_rng(seed_of(*self.seed, "epoch", epoch))
        parts = []
        for table, count in zip(self.tables, self.counts, strict=True):
            passes = [random.permutation(table) for _ in range(-(-count // max(1, len(table))))]
            parts.append(np.concatenate([np.empty(0, dtype=np.int64), *passes])[:count])
        return random.permutation(np.concatenate(parts))

    def slice(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows at positions ``start`` to ``stop`` of the epoch."""
        stop = min(stop, self.size)
        if not self.streamed:
            if self._last is None or self._last[0] != epoch:
                self._last = (epoch, self.rows(epoch))
            return self._last[1][start:stop]
        if len(self._used) == 1:
            return self._orders[self._used[0]].take(epoch, start, stop)
        origin, before = self._origins(epoch)
        chunk = start // CHUNK
        done = before[chunk] + np.bincount(origin[chunk * CHUNK : start], minlength=len(self.tables))
        here = origin[start:stop]
        rows = np.empty(len(here), dtype=np.int64)
        for table, order in enumerate(self._orders):
            mine = here == table
            rows[mine] = order.take(epoch, int(done[table]), int(done[table] + mine.sum()))
        return rows

    def from_batch(self, epoch: int, first: int = 0) -> Iterator[np.ndarray]:
        """The epoch's batches from number ``first`` on."""
        if self.size_of is not None:
            yield from self._buckets(epoch, first)
            return
        for start in range(first * self.batch, self.size, self.batch):
            yield self.slice(epoch, start, start + self.batch)

    def _buckets(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """Batches of rows of like size: some batches' rows are sorted, cut again and dealt out at random."""
        assert self.size_of is not None
        span = BUCKETS * self.batch
        for start in range(first // BUCKETS * span, self.size, span):
            rows = self.slice(epoch, start, start + span)
            rows = rows[np.argsort(self.size_of(rows), kind="stable")]
            whole = len(rows) // self.batch
            number = start // self.batch
            random = np.random.default_rng(seed_of(*self.seed, "buckets", epoch, number))
            short = range(whole, -(-len(rows) // self.batch))  # the epoch's last batch stays the last
            for i, bucket in enumerate([*random.permutation(whole), *short]):
                if number + i >= first:
                    yield rows[bucket * self.batch : (bucket + 1) * self.batch]

    def _origins(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """From which table each position's row comes, and how many came before every ``CHUNK`` of them."""
        if self._last is None or self._last[0] != epoch:
            tables = np.arange(len(self.tables), dtype=np.uint16)
            random = np.random.default_rng(seed_of(*self.seed, "mixture", epoch))
            self._last = (epoch, random.permutation(np.repeat(tables, self.counts)))
            chunks = [self._last[1][i : i + CHUNK] for i in range(0, self.size, CHUNK)]
            counts = [np.bincount(chunk, minlength=len(self.tables)) for chunk in chunks]
            self._before = np.cumsum([np.zeros(len(self.tables), dtype=np.int64), *counts], axis=0)
        return self._last[1], self._before
