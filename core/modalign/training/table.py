"""One table in memory: its cells by row and modality, its splits, its labels."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modalign.errors import UserError, listed, suggest

from .cells import Cell, filled, label_of, values_of
from .data_plan import Source, SplitBy
from .folder_table import column_names, read_folder
from .hub_dataset import read_dataset
from .table_files import Part, locate, read_table

log = logging.getLogger("modalign")


class Table:
    """One table: its cells by row and modality, its splits, its labels.

    Inputs:
        literal: modalities whose strings are the item itself rather than a path.
        split: only this one of ``source.tables``.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        modalities: Iterable[str],
        literal: Iterable[str],
        split: str | None = None,
    ) -> None:
        modalities = list(modalities)
        self.literal = set(literal)
        named = source.columns or {m: m for m in modalities}
        texts = [one for m, c in named.items() if m in self.literal for one in c.split(";")]
        parts = read_parts(source, folder, texts, split)
        self.path = parts[0].path
        starts = [0, *itertools.accumulate(len(part.arrow) for part in parts)]
        self._places = [
            (part.path, range(a, b)) for part, (a, b) in zip(parts, itertools.pairwise(starts), strict=True)
        ]
        self.roots = [part.root for part in parts for _ in range(len(part.arrow))]
        try:
            self.arrow = pa.concat_tables([part.arrow for part in parts], promote_options="permissive")
        except pa.ArrowException as error:
            names = ", ".join(part.path.name for part in parts)
            raise UserError(f"the tables {names} do not fit together: {error}") from None
        self.columns, by = resolve(source, self.path.name, self.column_names, modalities)
        self.label = source.label
        self._named = {m: column_names(c, self.column_names) or [c] for m, c in self.columns.items()}
        if parts[0].split is not None:
            self.splits = [str(part.split) for part in parts for _ in range(len(part.arrow))]
        elif by is not None:
            assert source.split is not None
            self.splits = list(map(splitter(source.split), self.arrow[by].to_pylist()))
            without_split(self.path.name, self.splits.count(""))
        else:
            self.splits = ["train"] * len(self.arrow)
        self._cells: dict[tuple[str, int], list[Cell]] = {}
        self.mapped = source.dataset is not None  # its values lie on disk, and may be larger than memory

    def __len__(self) -> int:
        return len(self.splits)

    @property
    def column_names(self) -> list[str]:
        return list(self.arrow.column_names)

    def places(self) -> list[tuple[Path, range]]:
        """Its files, and the rows that each holds."""
        return self._places

    def split_rows(self) -> dict[str, np.ndarray | range]:
        """Row numbers by split, rising."""
        rows: dict[str, list[int]] = {}
        for row, split in enumerate(self.splits):
            if split:
                rows.setdefault(split, []).append(row)
        return {split: np.array(numbers, dtype=np.int64) for split, numbers in rows.items()}

    def digest(self) -> str:
        """Changes when the table's content does (files that its cells point to apart)."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self.arrow.column_names):
            digest.update(name.encode())
            for chunk in self.arrow[name].chunks:
                for buffer in chunk.buffers():
                    digest.update(buffer or b"")
        return digest.hexdigest()

    def labels(self, column: str | None = None) -> list[str | None]:
        """By row, the label as text: 1, 1.0 and "1" are one class. None where there is none.

        Inputs:
            column: instead of the one that the plan's data name.
        """
        column = column or self.label
        known = column in self.arrow.column_names
        values = self.arrow[column].to_pylist() if known else [None] * len(self)
        return [label_of(value, column) for value in values]

    def filled(self, modality: str) -> np.ndarray:
        """By row: whether the modality's cell holds anything at all (without reading it); ``(n,)`` bool."""
        has = np.zeros(len(self), dtype=bool)
        for column in self._named.get(modality, ()):
            has |= filled(self.arrow[column], modality in self.literal)
        return has

    def cells(self, modality: str, row: int) -> list[Cell]:
        """The alternatives in one cell; none where the modality is missing."""
        known = self._cells.get((modality, row))
        if known is None:
            known = []
            for column in self._named.get(modality, ()):
                value = self.arrow[column][row].as_py()
                found = values_of(value, modality in self.literal, self.roots[row])
                known = [Cell(v) for v in found]
                if known:
                    break
            if not self.mapped or all(isinstance(cell.value, Path) for cell in known):
                self._cells[modality, row] = known
        return known

    def size(self, modality: str, row: int) -> int:
        """Roughly the bytes of a row's first alternative; 0 where it is missing."""
        return next((cell.size for cell in self.cells(modality, row)), 0)


def read_parts(source: Source, folder: Path, texts: list[str], split: str | None) -> list[Part]:
    """The files, folders or splits that a source names, read.

    Inputs:
        texts: columns of strings that are items themselves.
        split: only this one.
    """
    if source.dataset is not None:
        return read_dataset(source.dataset, folder)
    named = {None: source.table} if source.table else dict(source.tables or {})
    parts = []
    for name, text in named.items():
        if split is None or name == split:
            path = locate(str(text), folder)
            root = folder / source.root if source.root else path if path.is_dir() else path.parent
            arrow = read_folder(path, texts) if path.is_dir() else read_table(path, texts)
            parts.append(Part(name, path, root, arrow))
    return parts


def resolve(
    source: Source, table: str, known: list[str], modalities: Iterable[str]
) -> tuple[dict[str, str], str | None]:
    """The column of every modality, and the one that names the split.

    Inputs:
        table: its name, for messages.
        known: its columns.

    Raises:
        UserError: if a column that the source names is not there.
    """
    by = source.split.column if isinstance(source.split, SplitBy) else source.split
    if source.table is None:
        by = None
    columns = source.columns or {m: m for m in modalities if m in known}
    wanted = [*columns.values(), *filter(None, (source.label, by))]
    unknown = [c for c in wanted if not column_names(c, known) and c not in known]
    if unknown:
        near = f"{suggest(unknown[0], known)} (it has: {listed(known)})"
        raise UserError(f"{table} has no column '{unknown[0]}'{near}")
    return columns, by


def splitter(by: str | SplitBy) -> Callable[[Any], str]:
    """What tells the split that a column's value names; "" where it names none."""
    if isinstance(by, str):
        return lambda value: label_of(value, by, "split") or ""

    def text(value: Any) -> str | None:
        return label_of(int(value) if isinstance(value, bool) else value, by.column, "split")

    named: dict[str | None, str] = {}
    for split, values in by.named.items():
        for value in values:
            named.setdefault(text(value), split)
    return lambda value: named.get(text(value), "train")


def without_split(table: str, count: int) -> None:
    """Say that rows are left out."""
    if count:
        log.warning("%s: %d rows name no split and are left out", table, count)
