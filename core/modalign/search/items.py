"""What can be indexed: the files of folders, the cells of tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalign.errors import UserError
from modalign.space import Space
from modalign.training.cells import Cell
from modalign.training.data_plan import Source
from modalign.training.table import Table
from modalign.training.table_files import READERS

ABOUT, ITEMS = "index.json", "items.parquet"
"""The files that make a folder an index."""


@dataclass(frozen=True)
class Place:
    """Where a value stands: a file, or an alternative in a row and column of a table."""

    file: str
    column: str | None = None
    row: int | None = None
    part: int = 0

    def __str__(self) -> str:
        return self.path if self.row is None else f"{self.path}, row {self.row}, {self.column}"

    @property
    def path(self) -> str:
        """The file's name as it can be shown, whatever bytes it is made of."""
        return os.fsencode(self.file).decode("utf-8", "replace")


@dataclass(frozen=True)
class Item:
    """One thing that an index holds.

    Inputs:
        modality: of the space.
        key: 16 bytes, equal where the content is.
        place: where it was found.
        literal: the value itself, where it is one; None for a file.
    """

    modality: str
    key: bytes
    place: Place
    literal: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A value that may become an item: the first of the modalities that reads it has it."""

    modalities: tuple[str, ...]
    cell: Cell
    place: Place


@dataclass(frozen=True)
class Found:
    """What lies at some paths.

    Inputs:
        candidates: the values there.
        roots: folder, file or table -> the modalities looked for there, each with its column (None: files).
    """

    candidates: list[Candidate]
    roots: dict[str, dict[str, str | None]]

    def covers(self, item: Item) -> bool:
        """Whether an item would be among the candidates if it were still there."""
        for root, sought in self.roots.items():
            inside = item.place.file == root or item.place.file.startswith(root.rstrip(os.sep) + os.sep)
            if inside and sought.get(item.modality, "") == item.place.column:
                return True
        return False


def find(
    space: Space, paths: Sequence[Path], columns: Mapping[str, str] | None = None, only: str | None = None
) -> Found:
    """The values at these paths: every file below a folder, every cell of a table.

    Hidden files and folders, and indexes, are passed over. A file is tried with the space's modalities in
    their order, those whose items are files before those whose items are literals.

    Inputs:
        columns: which column of a table holds which modality; by default that of its own name.
        only: look for this modality alone.

    Raises:
        UserError: if a path, a column or a modality is not there.
    """
    for name in [*(columns or {}), *([only] if only else [])]:
        space.entry(name)
    names = [only] if only else sorted(space.modalities, key=lambda name: space.reader(name).literal)
    found = Found([], {})
    for path in paths:
        path = path.absolute()
        if path.is_file() and path.suffix.lower() in READERS:
            table = open_table(space, path, columns, names)
            found.candidates.extend(_cells(table, path))
            found.roots.setdefault(str(path), {}).update(table.columns)
        elif path.exists():
            files = _files(path) if path.is_dir() else [path]
            found.candidates.extend(Candidate(tuple(names), Cell(file), Place(str(file))) for file in files)
            found.roots.setdefault(str(path), {}).update(dict.fromkeys(names))
        else:
            raise UserError(f"there is no file or folder {path}")
    return found


def open_table(
    space: Space, path: Path, columns: Mapping[str, str] | None, names: Sequence[str] | None = None
) -> Table:
    """A table whose cells are values of the space's modalities.

    Raises:
        UserError: if it is damaged, or no column of it is a modality of the space.
    """
    names = list(space.modalities) if names is None else names
    literal = [name for name in names if space.reader(name).literal]
    wanted = {name: column for name, column in (columns or {}).items() if name in names} or None
    table = Table(Source(table=str(path), columns=wanted), path.parent, names, literal)
    if not table.columns:
        raise UserError(
            f"{path.name} has no column named {' or '.join(names)} (it has: "
            f"{', '.join(table.arrow.column_names)}): say which with --column {names[0]}=COLUMN"
        )
    return table


def cell_of(space: Space, item: Item, tables: dict[tuple[str, str], Table]) -> Cell:
    """The value of an item, read again from where it stands.

    Inputs:
        tables: those opened so far, by file and column; grows.

    Raises:
        UserError: if it is not there any more, or is another now.
    """
    place = item.place
    if item.literal is not None:
        return Cell(item.literal)
    if place.row is None or place.column is None:
        cell = Cell(Path(place.file))
    else:
        at = (place.file, place.column)
        if at not in tables:
            tables[at] = open_table(space, Path(place.file), {item.modality: place.column})
        cells = tables[at].cells(item.modality, place.row) if place.row < len(tables[at]) else []
        cell = cells[place.part] if place.part < len(cells) else Cell(b"")
    if cell.key != item.key:
        raise UserError(f"{place} has changed since it was indexed: index it again")
    return cell


def _cells(table: Table, path: Path) -> Iterator[Candidate]:
    for row in range(len(table)):
        for name, column in table.columns.items():
            for part, cell in enumerate(table.cells(name, row)):
                yield Candidate((name,), cell, Place(str(path), column, row, part))


def _files(folder: Path) -> Iterator[Path]:
    for where, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if {ABOUT, ITEMS} <= {*files}:
            below.clear()
            continue
        for name in sorted(files):
            path = Path(where, name)
            special = path.exists() and not path.is_file()  # a pipe would never end
            if not name.startswith(".") and not special:
                yield path
