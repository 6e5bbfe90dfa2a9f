"""Whether embeddings can be written where somebody asked for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from modalign.errors import UserError, short

from ..shards.files import is_shards, shard_files
from ..table_files import expanded


def quarantine_of(out: Path) -> Path:
    """Where that is written which could not be read."""
    return out.with_name(f"{out.name}.quarantine.csv")


def check_out(out: Path, table: str | None = None, values: Sequence[str] = ()) -> Path:
    """The absolute path of the file to write.

    Inputs:
        table: that is read, relative to the current folder: a file, a folder or a pattern.
        values: instead of a table; some may be paths.

    Raises:
        UserError: if it is a folder or no name for a file, cannot be written, or would take the place of
            what is read.
    """
    whole = out.absolute()
    if out.name in ("", "..") or os.path.isdir(whole):
        raise UserError(f"--out {out} is a folder; name a file, such as {out / 'embeddings.parquet'}")
    _check_place(out, whole)
    written = [whole] if table is None else [whole, quarantine_of(whole)]
    for path in written:
        if path.exists() and not path.is_file():
            raise UserError(f"--out {out}: {path} is in the way, and no file; name another file")
    there = [path for path in written if path.exists()]
    if there and any(_reads(path, table, Path.cwd()) for path in there):
        raise UserError(f"--out {out} is read as part of --table, and would be lost: name another file")
    if any(os.path.exists(value) and os.path.samefile(value, path) for path in there for value in values):
        raise UserError(f"--out {out} is one of the values, and would be lost: name another file")
    return whole


def _check_place(out: Path, whole: Path) -> None:
    try:  # the longest of the names that are written beside it
        os.stat(whole.with_name(f".{out.name}.quarantine.csv.part"))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--out {short(str(out), 80)!r} cannot be written: {reason}; name another") from None
    near = next(path for path in whole.parents if path.exists())
    if not os.access(near, os.W_OK | os.X_OK):
        raise UserError(f"--out {out} cannot be written: {near} is not yours to write in; name another")


def _reads(path: Path, table: str | None, folder: Path) -> bool:
    """Whether a file is one of the table's."""
    if table is None:
        return False
    files = shard_files(table, folder) if is_shards(table) else [folder / expanded(table)]
    for file in files:
        if os.path.isdir(file):  # whose Parquet files are what earlier runs have written
            if path.suffix != ".parquet" and path.resolve().is_relative_to(file.resolve()):
                return True
        elif os.path.exists(file) and path.samefile(file):
            return True
    return False
