"""A table that stays on disk: shards, of which a few blocks are in memory at a time."""

from __future__ import annotations

import hashlib
import logging
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cells import Cell, label_of, values_of
from ..data_plan import Source, SplitBy
from ..folder_table import column_names
from ..table import resolve, splitter, without_split
from .arrow_shard import ParquetShard, WholeShard
from .files import TAR, shard_files
from .shard import Shard, every
from .tar_shard import JSON, TarShard

log = logging.getLogger("modalign")
MANY = 4096
"""Rows of a block above which smaller ones would help."""
WINDOW_BYTES = 256 * 2**20
"""Blocks that are shuffled together take no more than this, unless one alone does."""


class StreamedTable:
    """What ``Table`` offers, for rows that do not fit into memory: ask for them in the order of blocks.

    Inputs:
        path: of the plan: a pattern, or a tar archive.
        split: of all rows; None: a column says, or all are in ``train``.
    """

    def __init__(
        self,
        source: Source,
        path: str,
        split: str | None,
        folder: Path,
        modalities: Iterable[str],
        literal: Iterable[str],
    ) -> None:
        self.literal, self.label = set(literal), source.label
        modalities = list(modalities)
        files = shard_files(path, folder)
        named = source.columns or {m: m for m in modalities}
        self.texts = {one for m, c in named.items() if m in self.literal for one in (c, *c.split(";"))}
        self.shards = [open_shard(file, self.texts) for file in files]
        self.path = folder / Path(path)
        self.roots = [folder / source.root if source.root else file.parent for file in files]
        self.column_names = sorted({c for shard in self.shards for c in shard.columns})
        by_column = source.split.column if isinstance(source.split, SplitBy) else source.split
        asked = [c for c in (*named.values(), source.label, by_column) if c and c.startswith(f"{JSON}.")]
        known = self.column_names + (asked if JSON in self.column_names else [])
        self.columns, by = resolve(source, Path(path).name, known, modalities)
        numbered = [(s, i) for s, shard in enumerate(self.shards) for i in range(len(shard.blocks))]
        self._blocks = [block for block in numbered if self.shards[block[0]].blocks[block[1]]]
        counts = [self.shards[s].blocks[i] for s, i in self._blocks]
        self.weights = [self.shards[s].weights[i] for s, i in self._blocks]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        """``(blocks + 1,)``: the first row of every block, and the number of rows."""
        self._first = self.starts.tolist()
        self.window = source.window
        if max(counts, default=0) > max(4 * self.window, MANY):
            log.warning(
                "%s: blocks of %d rows are read whole; row groups of about 1,000 rows take less memory",
                self.path.name,
                max(counts),
            )
        most = self.window + max(counts, default=0)
        self._most = (2 * most, 2 * (WINDOW_BYTES + max(self.weights, default=0)))
        self._held: OrderedDict[tuple[int, str], Sequence[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._filled: dict[str, np.ndarray] = {}
        self._rows: dict[str, np.ndarray | range] = {}
        self._names: dict[tuple[int, str], list[str]] = {}
        self._split, self._by, self._told = split, by, source.split

    def __len__(self) -> int:
        return int(self.starts[-1])

    def places(self) -> list[tuple[Path, range]]:
        """What it is called, and its rows."""
        return [(self.path, range(len(self)))]

    def split_rows(self) -> dict[str, np.ndarray | range]:
        """Row numbers by split, rising."""
        if self._by is None:
            return {self._split or "train": range(len(self))}
        if not self._rows:
            told, numbers = self._told, dict[str, int]()
            assert told is not None
            split = splitter(told)
            named = (split(_text(value)) for value in self._every(self._by))
            of_row = np.fromiter((numbers.setdefault(s, len(numbers)) for s in named), np.int32, len(self))
            self._rows = {split: np.flatnonzero(of_row == i) for split, i in numbers.items()}
            without_split(self.path.name, len(self._rows.pop("", ())))
        return self._rows

    def digest(self) -> str:
        """Changes when a shard's name, size, beginning or end does."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.shards:
            digest.update(shard.digest())
        return digest.hexdigest()

    def labels(self, column: str | None = None) -> list[str | None]:
        """By row, the label as text."""
        column = column or self.label
        if column is None:
            return [None] * len(self)
        same: dict[str | None, str | None] = {}  # one object for each class
        return [same.setdefault(t, t) for t in (label_of(_text(v), column) for v in self._every(column))]

    def filled(self, modality: str) -> np.ndarray:
        """By row: whether the modality's cell holds anything at all; ``(n,)`` bool."""
        if modality not in self._filled:
            self._filled[modality] = self._find(modality)
        return self._filled[modality]

    def _find(self, modality: str) -> np.ndarray:
        column, literal = self.columns.get(modality), modality in self.literal
        if column is None:
            return np.zeros(len(self), dtype=bool)
        parts = []
        for s, i in self._blocks:
            shard = self.shards[s]
            has = [shard.filled(i, name, literal) for name in self._in(s, column)]
            none = np.zeros(shard.blocks[i], dtype=bool)
            parts.append(has[0] if len(has) == 1 else np.any([none, *has], axis=0))
        return every(len(self)) if all(p.all() for p in parts) else np.concatenate(parts)

    def cells(self, modality: str, row: int) -> list[Cell]:
        """The alternatives in one cell; none where the modality is missing."""
        column, literal = self.columns.get(modality), modality in self.literal
        if column is None:
            return []
        block = bisect_right(self._first, row) - 1
        s, _ = self._blocks[block]
        for name in self._in(s, column):
            value = self._values(block, name)[row - self._first[block]]
            found = [Cell(v) for v in values_of(value, literal, self.roots[s])]
            if found:
                return found
        return []

    def size(self, modality: str, row: int) -> int:
        """Roughly the bytes of a row's value; 0 where it is missing."""
        column = self.columns.get(modality)
        if column is None:
            return 0
        block = bisect_right(self._first, row) - 1
        s, _ = self._blocks[block]
        names = self._in(s, column)
        literal = modality in self.literal
        sizes = [self._sizes(block, name, literal)[row - self._first[block]] for name in names]
        size = int(next((size for size in sizes if size), 0))
        return size if size >= 0 else next((cell.size for cell in self.cells(modality, row)), 0)

    def _in(self, number: int, column: str) -> list[str]:
        """The columns of a shard that a plan's ``png;jpg`` names; a field of JSON files is one too."""
        found = self._names.get((number, column))
        if found is None:
            shard = self.shards[number]
            if isinstance(shard, TarShard):
                found = [column] if shard.has(column) else []
            else:
                found = column_names(column, shard.columns)
            self._names[number, column] = found
        return found

    def _values(self, block: int, column: str) -> Sequence[Any]:
        """A block's column."""
        s, i = self._blocks[block]
        return self._hold((block, column), lambda: self.shards[s].values(i, column))

    def _sizes(self, block: int, column: str, literal: bool) -> Sequence[Any]:
        s, i = self._blocks[block]
        read = self.shards[s].sizes
        return self._hold((block, f"size of {column}"), lambda: read(i, column, literal).tolist())

    def _hold(self, key: tuple[int, str], read: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        """What is read, or still held; the least recently used blocks are given up."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            found = self._held[key] = read()
            mine = [b for b, name in self._held if name == key[1]]
            rows = sum(self._first[b + 1] - self._first[b] for b in mine)
            weight = sum(self.weights[b] for b in mine)
            for b in mine[:-1]:
                if rows <= self._most[0] and weight <= self._most[1]:
                    break
                rows -= self._first[b + 1] - self._first[b]
                weight -= self.weights[b]
                del self._held[b, key[1]]
            return found

    def _every(self, column: str) -> Iterator[Any]:
        """A column's values, one block after the other."""
        for s, i in self._blocks:
            names = self._in(s, column)
            if names:
                yield from self.shards[s].values(i, names[0])
            else:
                yield from [None] * self.shards[s].blocks[i]


def open_shard(path: Path, texts: Iterable[str]) -> Shard:
    """A file as a shard.

    Inputs:
        texts: columns whose strings are items themselves.
    """
    if path.suffix.lower() == TAR:
        return TarShard(path, texts)
    return ParquetShard(path) if path.suffix.lower() == ".parquet" else WholeShard(path, texts)


def _text(value: Any) -> Any:
    """A label or split as a file of an archive holds it."""
    return value.decode(errors="replace").strip() if isinstance(value, bytes) else value
