"""What a stage learns from: one table or a weighted mixture, rows numbered through."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from .cells import Cell
from .data_plan import Data, Source
from .shards.files import is_shards
from .shards.streamed_table import WINDOW_BYTES, StreamedTable
from .stream_order import WindowOrder
from .table import Table

AnyTable = Table | StreamedTable


class Dataset:
    """One table or a weighted mixture of them, with rows numbered through."""

    def __init__(self, data: Data, folder: Path, modalities: Iterable[str], literal: Iterable[str]) -> None:
        modalities, literal = list(modalities), list(literal)
        opened = [(s, table) for s in data.sources() for table in open_tables(s, folder, modalities, literal)]
        self.tables = [table for _, table in opened]
        self.weights = [source.weight for source, _ in opened]
        self.offsets = [sum(len(t) for t in self.tables[:i]) for i in range(len(self.tables))]
        self.max_bad = data.max_bad
        self.has_labels = any(t.label for t in self.tables)

    def __len__(self) -> int:
        return sum(len(t) for t in self.tables)

    @property
    def columns(self) -> list[str]:
        """Every column of every table, sorted."""
        return sorted({name for table in self.tables for name in table.column_names})

    @property
    def streamed(self) -> bool:
        """Whether any of it stays on disk."""
        return any(isinstance(table, StreamedTable) for table in self.tables)

    def locate(self, row: int) -> tuple[AnyTable, int]:
        """The table that holds a row, and its number there."""
        if len(self.tables) == 1:
            return self.tables[0], row
        index = bisect_right(self.offsets, row) - 1
        while not len(self.tables[index]):
            index -= 1
        return self.tables[index], row - self.offsets[index]

    def place(self, row: int) -> tuple[Path, int]:
        """The file, or the pattern of files, that holds a row, and its number there."""
        table, local = self.locate(row)
        path, rows = next((path, rows) for path, rows in table.places() if local in rows)
        return path, local - rows.start

    def cells(self, modality: str, row: int) -> list[Cell]:
        table, local = self.locate(row)
        return table.cells(modality, local)

    def sizes(self, modality: str, rows: np.ndarray) -> np.ndarray:
        """Roughly the bytes of rows' values ``(n,)``; 0 where the modality is missing."""
        found = [self.locate(int(row)) for row in rows]
        return np.array([table.size(modality, local) for table, local in found], dtype=np.int64)

    @cached_property
    def splits(self) -> dict[str, np.ndarray | range]:
        """Row numbers by split, rising."""
        parts: dict[str, list[np.ndarray | range]] = {}
        for table, offset in zip(self.tables, self.offsets, strict=True):
            for split, rows in table.split_rows().items():
                parts.setdefault(split, []).append(shifted(rows, offset))
        return {s: p[0] if len(p) == 1 else np.concatenate([*map(np.asarray, p)]) for s, p in parts.items()}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of all labels, sorted; numbers by size."""
        return self.labelled(None)[0]

    @cached_property
    def labels(self) -> np.ndarray:
        """The class index of every row ``(rows,)``; -1 = unknown."""
        return self.labelled(None)[1]

    def labelled(self, column: str | None) -> tuple[tuple[str, ...], np.ndarray]:
        """The classes that a column names, and every row's class; None: the column of ``label``."""
        values = [value for table in self.tables for value in table.labels(column)]
        names = {value for value in values if value is not None}
        classes = sorted(names, key=lambda v: (not _is_number(v), float(v) if _is_number(v) else 0, v))
        index: dict[str | None, int] = {name: i for i, name in enumerate(classes)} | {None: -1}
        return tuple(classes), np.fromiter((index[v] for v in values), dtype=np.int64, count=len(values))

    def digest(self) -> str:
        return hashlib.blake2b("".join(t.digest() for t in self.tables).encode(), digest_size=16).hexdigest()

    def usable(self, split: str, modalities: Iterable[str], at_least: int) -> list[np.ndarray | range]:
        """By table: rows of a split in which at least that many of the modalities are filled, rising."""
        modalities = list(modalities)
        usable: list[np.ndarray | range] = []
        for table, offset in zip(self.tables, self.offsets, strict=True):
            rows = table.split_rows().get(split, range(0))
            has = [table.filled(m) for m in modalities]
            if len(rows) and sum(bool(np.all(h)) for h in has) < at_least:
                numbers = np.asarray(rows)
                rows = numbers[np.stack(has).sum(axis=0)[numbers] >= at_least]
            usable.append(shifted(rows, offset))
        return usable

    def orders(self, usable: list[np.ndarray | range], *seed: object) -> list[WindowOrder | None]:
        """By table: how the usable rows of a streamed one are visited; None for those in memory."""
        orders: list[WindowOrder | None] = []
        for i, (table, rows) in enumerate(zip(self.tables, usable, strict=True)):
            if not isinstance(table, StreamedTable):
                orders.append(None)
                continue
            starts = table.starts + self.offsets[i]
            orders.append(WindowOrder(rows, starts, table.weights, table.window, WINDOW_BYTES, *seed, i))
        return orders


def open_tables(
    source: Source, folder: Path, modalities: list[str], literal: list[str]
) -> Iterator[AnyTable]:
    """What a source names: a table in memory, or for each split its shards or table."""
    paths = {None: source.table} if source.table else dict(source.tables or {})
    on_disk = {s for s, path in paths.items() if path and (source.stream or is_shards(path))}
    if not on_disk:
        yield Table(source, folder, modalities, literal)
        return
    for split, path in paths.items():
        if split in on_disk:
            yield StreamedTable(source, str(path), split, folder, modalities, literal)
        else:
            yield Table(source, folder, modalities, literal, split)


def shifted(rows: np.ndarray | range, by: int) -> np.ndarray | range:
    """Row numbers with something added to each."""
    return range(rows.start + by, rows.stop + by) if isinstance(rows, range) else rows + by


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
