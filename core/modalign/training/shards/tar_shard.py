"""WebDataset archives: each file of a sample is read from its place, nothing is unpacked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..folder_table import column_names
from .shard import every, sample_digest
from .tar_index import tar_index

BLOCK = 1024
"""Samples whose order is shuffled together."""
JSON = "json"


class Members(Sequence[Any]):
    """Files of one ending, or of the first of several that a sample has.

    Inputs:
        path: of the archive.
        places: ``(n, 2)`` offset and size; offset -1 where there is none.
        text: whether they are UTF-8 rather than bytes.
        field: of the JSON objects they are, instead of all of it.
    """

    def __init__(self, path: Path, places: np.ndarray, text: bool, field: str | None) -> None:
        self.path, self.places, self.text, self.field = path, places, text, field

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: Any) -> Any:
        offset, size = map(int, self.places[row])
        if offset < 0:
            return None
        with self.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if self.field is not None:
            return _field(data, self.field)
        return data.decode(errors="replace").strip() if self.text else data


class TarShard:
    """A tar archive; ``json.caption`` is a column too: a field of its JSON files.

    Inputs:
        texts: columns that are read as UTF-8.
    """

    def __init__(self, path: Path, texts: Iterable[str]) -> None:
        self.path, self._texts = path, set(texts)
        self._index = tar_index(path)
        self.columns = self._index.endings
        rows = len(self._index.places)
        self.blocks = [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]
        self.weights = [0] * len(self.blocks)  # a file is read when it is asked for

    def has(self, column: str) -> bool:
        """Whether any sample may hold it."""
        return bool(column_names(self._ending(column), self.columns))

    def _places(self, block: int, column: str) -> np.ndarray:
        """``(n, 2)``: where the files of a column lie."""
        rows = self._index.places[block * BLOCK : (block + 1) * BLOCK]
        found = np.full((len(rows), 2), -1, dtype=np.int64)
        for ending in reversed(column_names(self._ending(column), self.columns)):
            places = rows[:, self.columns.index(ending)]
            found = np.where(places[:, :1] >= 0, places, found)
        return found

    def _ending(self, column: str) -> str:
        return JSON if self._field_of(column) else column

    def _field_of(self, column: str) -> str | None:
        head, _, field = column.partition(".")
        return field if head == JSON and field and column not in self.columns else None

    def values(self, block: int, column: str) -> Members:
        return Members(self.path, self._places(block, column), column in self._texts, self._field_of(column))

    def filled(self, block: int, column: str, literal: bool) -> np.ndarray:
        if self._field_of(column):
            return np.array([value not in (None, "") for value in self.values(block, column)], dtype=bool)
        there = self._places(block, column)[:, 0] >= 0
        return every(len(there)) if there.all() else there

    def sizes(self, block: int, column: str, literal: bool) -> np.ndarray:
        return np.maximum(self._places(block, column)[:, 1], 0)

    def digest(self) -> bytes:
        return sample_digest(self.path)


def _field(data: bytes, field: str) -> Any:
    """A field of a JSON object, ``a.b`` for one inside another; None if there is none."""
    try:
        value = json.loads(data)
        for name in field.split("."):
            value = value.get(name)
    except (ValueError, AttributeError, RecursionError):
        return None
    return value
