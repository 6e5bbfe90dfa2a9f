"""Finds and reads the files of tables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from modalign.errors import UserError, short, suggest

from .json_lines import check_lines

READERS = (".parquet", ".csv", ".jsonl", ".json")
BLOCK = 1 << 25
"""Bytes of CSV and JSON lines that are parsed at a time: no line may be longer."""


@dataclass(frozen=True)
class Part:
    """What one file, folder or split of a dataset holds, in memory.

    Inputs:
        split: of all its rows; None: a column says.
        root: the folder that paths in its cells are relative to.
    """

    split: str | None
    path: Path
    root: Path
    arrow: pa.Table


def expanded(path: str) -> str:
    """A plan's path with ``${VARIABLE}`` and ``~`` replaced.

    Raises:
        UserError: if a variable is not set.
    """
    missing = [v for v in re.findall(r"\$\{(\w+)\}", path) if v not in os.environ]
    if missing:
        raise UserError(
            f"{path}: the environment variable {missing[0]} is not set; export {missing[0]}=FOLDER"
        )
    return os.path.expanduser(os.path.expandvars(path))


def locate(path: str, folder: Path) -> Path:
    """The file or folder of a plan's path, relative to ``folder``.

    Raises:
        UserError: if a variable is not set or there is nothing of that name.
    """
    found = folder / expanded(path)
    try:
        os.stat(found)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"there is no file {short(path)}: {reason}") from None
    if not found.is_file() and not found.is_dir():
        there = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
        raise UserError(f"there is no file {path} (looked for {found}){suggest(found.name, there)}")
    return found


def checked(table: pa.Table) -> pa.Table:
    """The table, if its offsets lie within its data, its texts and its names are UTF-8.

    Raises:
        ValueError: if not; Arrow's readers leave that to whoever uses a table.
    """
    table.validate(full=True)
    check_names(table.schema)
    return table


def check_names(fields: Iterable[pa.Field]) -> None:
    """Look at the names of columns and of what lies within them.

    Raises:
        ValueError: if one is not UTF-8.
    """
    for field in fields:
        try:
            _ = field.name
        except UnicodeDecodeError:
            raise ValueError("the name of a column is not UTF-8") from None
        check_names(field.type.field(i) for i in range(field.type.num_fields))


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
            return checked(pyarrow.parquet.read_table(path))
        if kind == ".csv":
            types = {column: pa.string() for column in text}
            options = pa.csv.ConvertOptions(null_values=[""], strings_can_be_null=True, column_types=types)
            read = pa.csv.ReadOptions(block_size=BLOCK)
            parse = pa.csv.ParseOptions(newlines_in_values=True)  # or blocks are cut within quoted texts
            return checked(pyarrow.csv.read_csv(path, read, parse, options))
        check_lines(path)
        return checked(pyarrow.json.read_json(path, pa.json.ReadOptions(block_size=BLOCK)))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path.name}: not a readable {path.suffix[1:]} table: {reason}") from None
