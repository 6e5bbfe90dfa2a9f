"""Whether embeddings can be written where somebody asked for them."""

from __future__ import annotations

from pathlib import Path

from modalign.errors import UserError

from ..shards.files import is_shards, shard_files
from ..table_files import expanded


def check_out(out: Path, table: str | None = None, folder: Path | None = None) -> Path:
    """The absolute path of the file to write.

    Inputs:
        table: that is read, relative to ``folder``: a file, a folder or a pattern.

    Raises:
        UserError: if it is a folder, or a file of the table itself.
    """
    whole = out.absolute()
    if whole.is_dir() or not out.name:
        raise UserError(f"--out {out} is a folder; name a file, such as {out / 'embeddings.parquet'}")
    if table is not None and whole.exists():
        folder = folder or Path.cwd()
        files = shard_files(table, folder) if is_shards(table) else [folder / expanded(table)]
        if any(file.exists() and whole.samefile(file) for file in files):
            raise UserError(f"--out {out} is read as part of --table, and would be lost: name another file")
    return whole
