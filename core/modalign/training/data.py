"""What a stage learns from: one table or a weighted mixture, rows numbered through."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from .plan import Data
from .table import Cell, Table


class Dataset:
    """One table or a weighted mixture of them, with rows numbered through."""

    def __init__(self, data: Data, folder: Path, modalities: Iterable[str], literal: Iterable[str]) -> None:
        modalities, literal = list(modalities), list(literal)
        self.tables = [Table(source, folder, modalities, literal) for source in data.sources()]
        self.weights = [source.weight for source in data.sources()]
        self.offsets = [sum(len(t) for t in self.tables[:i]) for i in range(len(self.tables))]
        self.max_bad = data.max_bad
        self.has_labels = any(t.label for t in self.tables)

    def __len__(self) -> int:
        return sum(len(t) for t in self.tables)

    @property
    def columns(self) -> list[str]:
        """Every column of every table, sorted."""
        return sorted({name for table in self.tables for name in table.arrow.column_names})

    def locate(self, row: int) -> tuple[Table, int]:
        if len(self.tables) == 1:
            return self.tables[0], row
        index = max(i for i, offset in enumerate(self.offsets) if offset <= row)
        return self.tables[index], row - self.offsets[index]

    def cells(self, modality: str, row: int) -> list[Cell]:
        table, local = self.locate(row)
        return table.cells(modality, local)

    @cached_property
    def splits(self) -> dict[str, list[int]]:
        """Row numbers by split."""
        rows: dict[str, list[int]] = {}
        for i, split in enumerate(s for table in self.tables for s in table.splits):
            rows.setdefault(split, []).append(i)
        return rows

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of all labels, sorted; numbers by size."""
        return self.labelled(None)[0]

    @cached_property
    def labels(self) -> list[int]:
        """The class index of every row; -1 = unknown."""
        return self.labelled(None)[1]

    def labelled(self, column: str | None) -> tuple[tuple[str, ...], list[int]]:
        """The classes that a column names, and every row's class; None: the column of ``label``."""
        values = [value for table in self.tables for value in table.labels(column)]
        names = {value for value in values if value is not None}
        classes = sorted(names, key=lambda v: (not _is_number(v), float(v) if _is_number(v) else 0, v))
        index = {name: i for i, name in enumerate(classes)}
        return tuple(classes), [-1 if value is None else index[value] for value in values]

    def digest(self) -> str:
        return hashlib.blake2b("".join(t.digest() for t in self.tables).encode(), digest_size=16).hexdigest()

    def usable(self, split: str, modalities: Iterable[str], at_least: int) -> list[list[int]]:
        """By table: rows of a split in which at least that many of the modalities are filled."""
        modalities = list(modalities)
        usable = []
        for table, offset in zip(self.tables, self.offsets, strict=True):
            counts = [sum(row) for row in zip(*(table.filled(m) for m in modalities), strict=True)]
            usable.append(
                [
                    offset + i
                    for i, (s, n) in enumerate(zip(table.splits, counts, strict=True))
                    if s == split and n >= at_least
                ]
            )
        return usable


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
