"""One table of paired samples: its files, its splits, what its cells hold."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from modalign.errors import UserError, suggest

from .plan import Source, SplitBy

READERS = (".parquet", ".csv", ".jsonl", ".json")


def locate(path: str, folder: Path) -> Path:
    """A plan's path: ``${VARIABLE}`` and ``~`` replaced, relative to ``folder``.

    Raises:
        UserError: if a variable is not set or there is no such file.
    """
    missing = [v for v in re.findall(r"\$\{(\w+)\}", path) if v not in os.environ]
    if missing:
        raise UserError(
            f"{path}: the environment variable {missing[0]} is not set; export {missing[0]}=FOLDER"
        )
    found = folder / Path(os.path.expandvars(path)).expanduser()
    if not found.is_file():
        there = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
        raise UserError(f"there is no file {path} (looked for {found}){suggest(found.name, there)}")
    return found


def read_table(path: Path, text: Iterable[str] = ()) -> pa.Table:
    """A Parquet, CSV or JSON-lines file as an Arrow table.

    Inputs:
        text: columns of a CSV file that are text whatever they look like. Only an empty CSV field
            is missing: "null" and "NA" are words.

    Raises:
        UserError: if it is of another kind or damaged.
    """
    kind = path.suffix.lower()
    if kind not in READERS:
        raise UserError(f"{path.name}: cannot read '{path.suffix}' tables; use one of {', '.join(READERS)}")
    try:
        if kind == ".parquet":
            return pyarrow.parquet.read_table(path)
        if kind == ".csv":
            types = {column: pa.string() for column in text}
            options = pa.csv.ConvertOptions(null_values=[""], strings_can_be_null=True, column_types=types)
            return pyarrow.csv.read_csv(path, convert_options=options)
        return pyarrow.json.read_json(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path.name}: not a readable {path.suffix[1:]} table: {reason}") from None


def _label(value: Any, column: str | None) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | dict):
        raise UserError(f"the label column '{column}' holds {type(value).__name__}s; a row has one label")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numeric(value: Any) -> bool:
    """Whether a list is an array (of any depth, with holes) rather than a list of alternatives."""
    for one in value:
        if isinstance(one, list):
            return _numeric(one)
        if one is not None:
            return isinstance(one, int | float)
    return False


@dataclass(frozen=True)
class Cell:
    """One alternative of one modality in one row, not yet read."""

    value: Any
    """bytes, a ``Path`` or a literal: what ``Modality.read`` takes."""

    @cached_property
    def key(self) -> bytes:
        """16 bytes that are equal where the content is equal."""
        value = self.value
        if isinstance(value, Path):
            try:
                value = value.read_bytes()
            except OSError:
                value = str(value).encode()  # unreadable: reading it gives the reason
        elif isinstance(value, str):
            value = b"s" + value.encode(errors="surrogatepass")
        elif not isinstance(value, bytes):
            value = b"j" + json.dumps(value, sort_keys=True, default=str).encode()
        return hashlib.blake2b(value, digest_size=16).digest()

    @property
    def size(self) -> int:
        """A rough size in bytes, to read like beside like."""
        value = self.value
        if isinstance(value, Path):
            return value.stat().st_size if value.is_file() else 0
        return len(value) if isinstance(value, str | bytes | list) else 8


class Table:
    """One table: its cells by row and modality, its splits, its labels.

    Inputs:
        literal: modalities whose strings are the item itself rather than a path.
    """

    def __init__(
        self, source: Source, folder: Path, modalities: Iterable[str], literal: Iterable[str]
    ) -> None:
        files = {"": source.table} if source.table else dict(source.tables or {})
        paths = {split: locate(file, folder) for split, file in files.items()}
        self.literal = set(literal)
        named = source.columns or {m: m for m in modalities}
        parts = [
            read_table(path, [c for m, c in named.items() if m in self.literal]) for path in paths.values()
        ]
        self.path = next(iter(paths.values()))
        roots = [folder / source.root if source.root else path.parent for path in paths.values()]
        self.roots = [root for root, part in zip(roots, parts, strict=True) for _ in range(len(part))]
        try:
            self.arrow = pa.concat_tables(parts, promote_options="permissive")
        except pa.ArrowException as error:
            names = ", ".join(path.name for path in paths.values())
            raise UserError(f"the tables {names} do not fit together: {error}") from None
        self.columns = source.columns or {m: m for m in modalities if m in self.arrow.column_names}
        self.label = source.label
        by = source.split.column if isinstance(source.split, SplitBy) else source.split
        wanted = [*self.columns.values(), *filter(None, (source.label, by))]
        unknown = [c for c in wanted if c not in self.arrow.column_names]
        if unknown:
            names = self.arrow.column_names
            near = f"{suggest(unknown[0], names)} (it has: {', '.join(names)})"
            raise UserError(f"{self.path.name} has no column '{unknown[0]}'{near}")
        if source.table is None:
            self.splits = [s for s, part in zip(paths, parts, strict=True) for _ in range(len(part))]
        elif isinstance(source.split, SplitBy):
            self.splits = [source.split.split_of(v) for v in self.arrow[source.split.column].to_pylist()]
        elif source.split:
            self.splits = [str(s) for s in self.arrow[source.split].to_pylist()]
        else:
            self.splits = ["train"] * len(self.arrow)
        self._cells: dict[tuple[str, int], list[Cell]] = {}

    def __len__(self) -> int:
        return len(self.splits)

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
        return [_label(value, column) for value in values]

    def filled(self, modality: str) -> list[bool]:
        """By row: whether the modality's cell holds anything at all (without reading it)."""
        column = self.columns.get(modality)
        if column is None:
            return [False] * len(self)
        values = self.arrow[column]
        if pa.types.is_nested(values.type):
            return [bool(self.cells(modality, row)) for row in range(len(self))]
        filled = pc.is_valid(values)
        if pa.types.is_floating(values.type):
            filled = pc.and_(filled, pc.invert(pc.is_nan(values)))
        elif pa.types.is_string(values.type) and modality not in self.literal:
            filled = pc.and_(filled, pc.not_equal(values, ""))
        return pc.fill_null(filled, False).to_pylist()

    def cells(self, modality: str, row: int) -> list[Cell]:
        """The alternatives in one cell; none where the modality is missing."""
        known = self._cells.get((modality, row))
        if known is None:
            column = self.columns.get(modality)
            value = None if column is None else self.arrow[column][row].as_py()
            known = [Cell(v) for v in self._values(value, modality in self.literal, self.roots[row])]
            self._cells[modality, row] = known
        return known

    def _values(self, value: Any, literal: bool, root: Path) -> list[Any]:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return []
        if isinstance(value, list) and not _numeric(value):
            return [one for v in value for one in self._values(v, literal, root)]
        if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
            if value.get("bytes") is not None:
                return [value["bytes"]]
            value, literal = value.get("path"), False
        if isinstance(value, str) and not literal:
            return [root / value] if value else []
        return [] if value is None else [value]
