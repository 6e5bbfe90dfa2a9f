"""Looks at data and feature cache without writing: samples, hits, the cost of an encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .data import Cell
from .feature_cache import FeatureCache
from .live_memory import LiveMemory
from .reader import CHUNK, MEMO_BYTES, Reader

LEAST = 256
"""Rows that are counted however long it takes."""


class Peek(FeatureCache):
    """A feature cache that keeps what is added to it in memory, for a while."""

    def __init__(self, name: str) -> None:
        self.kept: dict[bytes, np.ndarray] = {}
        super().__init__(name)

    def get(self, key: bytes) -> np.ndarray | None:
        return self.kept[key] if key in self.kept else super().get(key)

    def put(self, entries: dict[bytes, Tensor]) -> None:
        self.kept |= {key: tokens.numpy() for key, tokens in entries.items()}


@dataclass(frozen=True)
class Encoding:
    """What filling the feature cache for one modality takes.

    Inputs:
        samples: distinct ones, every cached view counted.
        cached: of them, those that are in the cache already.
        exact: False if the data were too many to look at each of them.
        each: seconds to read and encode one, on one process.
        disk: bytes that the cache grows by.
        memory: bytes at the peak of encoding one chunk.
        items: bytes of decoded items that stay in memory.
        again: whether they are not kept anywhere, so that every step reads its own and nothing comes before.
    """

    modality: str
    samples: int
    cached: int
    exact: bool
    each: float
    disk: int
    memory: int
    items: int
    again: bool = False

    @property
    def seconds(self) -> float:
        """To read and encode all that is not cached, on one process, beside what the steps themselves do."""
        return 0.0 if self.again else self.each * (self.samples - self.cached)


def peeking(reader: Reader) -> Reader:
    """The reader, which from now on writes nothing to disk."""
    if reader.cache is not None and not isinstance(reader.cache, Peek):
        reader.cache = Peek(reader._cache_name()[0])
    return reader


def look(reader: Reader, rows: Sequence[int], total: int, seconds: float) -> Encoding:
    """Count a modality's samples and encode a few of them.

    Inputs:
        rows: of the stage, in random order; of ``total`` altogether.
        seconds: to spend, about.
    """
    begun, looked = time.perf_counter(), 0
    seen: dict[bytes, tuple[Cell, int]] = {}
    for row in rows:
        for cell in reader.dataset.cells(reader.name, row):
            seen.setdefault(cell.key, (cell, row))
        looked += 1
        if looked >= LEAST and looked % 64 == 0 and time.perf_counter() - begun > seconds / 2:
            break
    exact = looked == total
    share = total / max(1, looked)
    views = max(1, reader.views)
    cache = reader.cache
    new = [pair for pair in seen.values() if cache is None or reader._key(pair[0], 0) not in cache]
    samples, fresh = round(len(seen) * share) * views, round(len(new) * share) * views
    cost = _cost(reader, new[: 4 * CHUNK], seconds / 2)
    items = min(MEMO_BYTES, round(cost.item * (samples if cache is None else fresh) / views))
    if cache is None:
        again = reader.dataset.streamed
        return Encoding(reader.name, samples, 0, exact, cost.seconds, 0, 0, items, again)
    disk = round(cost.disk * fresh)
    return Encoding(reader.name, samples, samples - fresh, exact, cost.seconds, disk, cost.memory, items)


@dataclass(frozen=True)
class _Cost:
    """Of one sample: seconds, bytes on disk, bytes of the item; of a chunk: bytes at the peak."""

    seconds: float = 0.0
    disk: float = 0.0
    item: float = 0.0
    memory: int = 0


def _cost(reader: Reader, cells: list[tuple[Cell, int]], seconds: float) -> _Cost:
    if not cells:
        return _Cost()
    cells = sorted(cells, key=lambda pair: pair[0].size)  # as they are encoded
    middle = len(cells) // 2
    first = [cells[middle], cells[0]][: len(cells)]
    started = time.perf_counter()
    _encode(reader, first)
    each = (time.perf_counter() - started) / len(first)
    size = int(min(CHUNK, max(1, seconds / 4 / max(each, 1e-9))))
    with LiveMemory() as memory:
        _encode(reader, cells[-size:])
    peak = memory.peak * min(CHUNK, len(cells)) / len(cells[-size:])
    took, count, disk = 0.0, 0, 0
    started = time.perf_counter()
    for start in range(0, max(1, len(cells) - size), size):
        chunk = cells[start : start + size]
        disk += _encode(reader, chunk)
        count += len(chunk)
        took = time.perf_counter() - started
        if took > seconds / 2:
            break
    return _Cost(took / count, disk / count, reader.held() / max(1, len(reader._items)), round(peak))


def _encode(reader: Reader, cells: Sequence[tuple[Cell, int]]) -> int:
    """Read and encode; the bytes of the features. Where nothing is cached, read alone."""
    if reader.cache is None:
        for cell, row in cells:
            reader.read(cell, row)
        return 0
    assert isinstance(reader.cache, Peek)
    for cell, _ in cells:  # as if for the first time
        reader.cache.kept.pop(reader._key(cell, 0), None)
    return sum(found.nbytes for found in reader.features(cells) if found is not None)
