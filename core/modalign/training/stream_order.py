"""The order of a streamed table's rows: blocks in random order, rows shuffled within a window of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .seeds import seed_of


class WindowOrder:
    """Rows by position in any epoch, without holding the epoch.

    Blocks come in random order; as many as fill a window are shuffled together. So a window's rows lie in
    few blocks, and position ``p`` of an epoch is always the same row, on any number of processes.

    Inputs:
        rows: usable row numbers, rising.
        starts: ``(blocks + 1,)`` the first row of every block, and the end, numbered as ``rows`` are.
        weights: bytes that each block takes.
        window, most_bytes: a window is closed when it has so many rows, or bytes.
    """

    def __init__(
        self,
        rows: np.ndarray | range,
        starts: np.ndarray,
        weights: Sequence[int],
        window: int,
        most_bytes: int,
        *seed: object,
    ) -> None:
        self.rows, self.window, self.most_bytes, self.seed = rows, window, most_bytes, seed
        if isinstance(rows, range):
            self._ends = np.clip(starts - rows.start, 0, len(rows))
        else:
            self._ends = np.searchsorted(rows, starts)
        self._weights = np.asarray(weights, dtype=np.int64)
        self._filled = np.flatnonzero(np.diff(self._ends))
        self._pass: str | None = None
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows at positions ``start`` to ``stop`` of an epoch; beyond its end it begins anew, reshuffled."""
        parts, size = [np.empty(0, dtype=np.int64)], len(self)
        while start < stop:
            again, first = divmod(start, size)
            end = min(stop - again * size, size)
            parts.append(self._within(f"{epoch} {again}", first, end))
            start = again * size + end
        return np.concatenate(parts)

    def _within(self, number: str, start: int, stop: int) -> np.ndarray:
        if number != self._pass:
            self._begin(number)
        first = int(np.searchsorted(self._offsets, start, side="right")) - 1
        parts = []
        while start < stop:
            here, end = int(self._offsets[first]), int(self._offsets[first + 1])
            parts.append(self._window(number, first)[start - here : min(stop, end) - here])
            start, first = min(stop, end), first + 1
        return np.concatenate(parts)

    def _begin(self, number: str) -> None:
        """Deal the blocks of a pass out to windows."""
        random = np.random.default_rng(seed_of(*self.seed, "blocks", number))
        self._blocks = random.permutation(self._filled)
        counts = np.diff(self._ends)[self._blocks]
        weights = self._weights[self._blocks]
        cuts, rows, size = [0], 0, 0
        for i, (count, weight) in enumerate(zip(counts.tolist(), weights.tolist(), strict=True)):
            if rows and (rows >= self.window or size + weight > self.most_bytes):
                cuts.append(i)
                rows = size = 0
            rows, size = rows + count, size + weight
        self._cuts = [*cuts, len(counts)]
        done = np.concatenate([[0], np.cumsum(counts)])
        self._offsets = done[self._cuts]
        self._pass, self._last = number, None

    def _window(self, number: str, index: int) -> np.ndarray:
        if self._last is None or self._last[0] != index:
            blocks = self._blocks[self._cuts[index] : self._cuts[index + 1]]
            rows = np.concatenate([np.asarray(self.rows[self._ends[b] : self._ends[b + 1]]) for b in blocks])
            random = np.random.default_rng(seed_of(*self.seed, "window", number, index))
            self._last = (index, random.permutation(rows))
        return self._last[1]


class WholeOrder:
    """The same for rows in memory: each pass a permutation of all of them."""

    def __init__(self, rows: np.ndarray | range, *seed: object) -> None:
        self.rows, self.seed = np.asarray(rows, dtype=np.int64), seed
        self._last: tuple[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows at positions ``start`` to ``stop`` of an epoch; beyond its end it begins anew, reshuffled."""
        parts, size = [np.empty(0, dtype=np.int64)], len(self)
        while start < stop:
            again, first = divmod(start, size)
            number = f"{epoch} {again}"
            if self._last is None or self._last[0] != number:
                random = np.random.default_rng(seed_of(*self.seed, "rows", number))
                self._last = (number, random.permutation(self.rows))
            end = min(stop - again * size, size)
            parts.append(self._last[1][first:end])
            start = again * size + end
        return np.concatenate(parts)
