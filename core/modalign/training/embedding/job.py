"""What a worker must know to embed parts of a table, and what a run of them must not change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space
from modalign.space_files import CONFIG, WEIGHTS

from ..build import versions
from ..data import Dataset
from ..data_plan import Data
from ..shards.tar_shard import TarShard
from ..table_files import expanded

ID = " id"
"""What the column carried along is called among the dataset's modalities; none of theirs has a space."""


@dataclass(frozen=True)
class EmbedJob:
    """One table to embed.

    Inputs:
        space: its folder, with ``config.json``.
        digest: of the space.
        table: as it was typed, relative to ``folder``.
        column: what holds the modality.
        carried: the column to carry along, if any.
        rows: of the table.
        parts: the folder for the parts.
        versions: of what the embeddings depend on.
    """

    space: str
    digest: str
    modality: str
    table: str
    folder: str
    column: str
    carried: str | None
    rows: int
    part_rows: int
    batch_size: int
    device: str
    parts: str
    versions: dict[str, str]

    def rows_of(self, part: int) -> range:
        """The table's rows in a part."""
        return range(part * self.part_rows, min(self.rows, (part + 1) * self.part_rows))

    def named(self, part: int) -> str:
        """A part as people know it."""
        rows = self.rows_of(part)
        return f"rows {rows.start} to {rows.stop - 1}"


def open_dataset(
    table: str, folder: Path, modality: str, column: str, carried: str | None, literal: bool
) -> Dataset:
    """The table's rows, read block by block, with a column to carry along as if it were a modality.

    Raises:
        UserError: if the table or a column is not there.
    """
    columns = {modality: column, **({ID: carried} if carried else {})}
    on_disk = not (folder / expanded(table)).is_dir()  # a folder's list of files is in memory
    data = Data(table=table, columns=columns, max_bad=1.0, stream=on_disk, window=1)
    # What is carried along from a folder is a file's path, not what it holds, unless that is embedded.
    texts = [*([ID] if on_disk or (literal and carried == column) else []), *([modality] if literal else [])]
    dataset = Dataset(data, folder, list(columns), texts)
    shards = [shard for table_ in dataset.tables for shard in getattr(table_, "shards", ())]
    both = set(column.split(";")) & set((carried or "").split(";"))  # in an archive either bytes or text
    if both and not literal and any(isinstance(shard, TarShard) for shard in shards):
        raise UserError(f"--id {carried} is what is embedded; name another column, such as txt or json.id")
    return dataset


def space_digest(folder: Path) -> str:
    """Changes with the space's weights and configuration."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def versions_of(space: Space, modality: str) -> dict[str, str]:
    """What the embeddings of a modality depend on: modalign, torch, the plugins that read and encode it."""
    entry = space.entry(modality)
    used = {spec.name.partition(":")[0] for spec in (space.projection_spec, entry.modality, entry.encoder)}
    return versions({p.distribution: p.version for p in loader.plugins() if p.distribution in used})
