"""A folder of files as a table: files that differ in their ending alone are one row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from modalign.errors import UserError

FOLDER = "folder"
"""The column that holds the name of the folder a row's files lie in."""


def split_name(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in lower case: ``a.seg.PNG`` -> ``a``, ``seg.png``."""
    stem, _, ending = name.partition(".")
    return stem, ending.lower()


def column_names(wanted: str, known: Iterable[str]) -> list[str]:
    """The columns that ``png;jpg`` names, of those there are."""
    known = set(known)
    return [name for name in wanted.split(";") if name in known]


def read_folder(folder: Path, texts: Iterable[str] = ()) -> pa.Table:
    """One row per stem, one column per ending with paths relative to the folder, and ``folder``.

    ``cat/1.png`` and ``cat/1.txt`` are a row with the columns ``png``, ``txt`` and ``folder`` (cat). Hidden
    files, and links to folders, are left out.

    Inputs:
        texts: columns (or ``txt;caption``) whose files are read as UTF-8: strings that are items themselves.

    Raises:
        UserError: if it holds no file with an ending, or a text is no UTF-8.
    """
    if folder.resolve() == Path(folder.absolute().anchor):
        raise UserError(f"{folder} is the whole disk: name the folder that the files lie in")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for where, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            stem, ending = split_name(name)
            if not _is_text(os.path.join(where, name)):
                raise UserError(f"{os.path.join(where, name)!r}: the name is not UTF-8; rename it")
            if stem and ending and Path(where, name).is_file():
                row = rows.setdefault((where, stem), {FOLDER: Path(where).name})
                row[ending] = os.path.relpath(Path(where, name), folder)
    if not rows:
        raise UserError(f"the folder {folder} holds no files such as 1.png and 1.txt")
    endings = sorted({ending for row in rows.values() for ending in row})
    for column in {name for text in texts for name in column_names(text, endings)} - {FOLDER}:
        for row in rows.values():
            if column in row:
                row[column] = _text(folder / row[column])
    return pa.table({e: pa.array([row.get(e) for row in rows.values()], pa.string()) for e in endings})


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable UTF-8 text: {error}") from None
