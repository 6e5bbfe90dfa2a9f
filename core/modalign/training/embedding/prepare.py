"""Looks at space, table and machine before anything is embedded or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from modalign.errors import UserError
from modalign.space_files import CONFIG, download, load

from .embedder import Embedder
from .job import EmbedJob, open_dataset, space_digest, versions_of

PART_ROWS, BATCH_SIZE = 4096, 64


@dataclass(frozen=True)
class What:
    """What to embed.

    Inputs:
        space: a folder or an MLflow URI.
        table: as a plan would name it, relative to the current folder.
        carried: a column to carry along.
    """

    space: str
    modality: str
    table: str
    column: str
    carried: str | None = None


@dataclass(frozen=True)
class How:
    """Where and in what portions a table is embedded.

    Inputs:
        workers: processes; None: one per GPU, else this process; on a cluster: as many as it has room for.
        part_rows: rows of a part; None: 4096, or those of the run to go on with.
        batch_size: samples encoded together; None: 64, or likewise.
        engine: "local" or "ray".
        address: of the Ray cluster.
        device: "auto" is CUDA where there is any.
        resume: go on with an interrupted run, if there is one.
    """

    workers: int | None = None
    part_rows: int | None = None
    batch_size: int | None = None
    engine: str = "local"
    address: str | None = None
    device: str = "auto"
    resume: bool = False


@dataclass
class Prepared:
    """A run that can begin.

    Inputs:
        manifest: what tells it from others.
        schema: of the output.
        embedder: with space and table loaded, where this process embeds itself.
        downloaded: whether the job's space lies in a folder that may vanish.
    """

    job: EmbedJob
    manifest: dict[str, Any]
    schema: pa.Schema
    embedder: Embedder | None
    downloaded: bool


def prepare(
    what: What, how: How, parts: Path, earlier: dict[str, Any] | None, device: str, alone: bool
) -> Prepared:
    """Everything about a run that can be known before it.

    Inputs:
        earlier: the manifest of the run to go on with.
        alone: whether this process embeds itself, on ``device``.

    Raises:
        UserError: if the space, the modality, the table or a column is not there.
    """
    if what.carried in ("row", "embedding"):
        raise UserError(f"--id {what.carried}: the output has a column of that name; rename it in the table")
    here = download(what.space)
    folder = Path(here)
    if not (folder / CONFIG).is_file() and (folder / "space" / CONFIG).is_file():
        folder = folder / "space"
    space = load(folder if folder.is_dir() else what.space, device if alone else "cpu")
    literal = space.reader(what.modality).literal
    dataset = open_dataset(what.table, Path.cwd(), what.modality, what.column, what.carried, literal)
    before = earlier or {}
    job = EmbedJob(
        space=str(folder.absolute()),
        digest=space_digest(folder),
        modality=what.modality,
        table=what.table,
        folder=str(Path.cwd()),
        column=what.column,
        carried=what.carried,
        rows=len(dataset),
        part_rows=how.part_rows or before.get("part_rows", PART_ROWS),
        batch_size=how.batch_size or before.get("batch_size", BATCH_SIZE),
        device=device,
        parts=str(parts),
        versions=versions_of(space, what.modality),
    )
    manifest = {
        "space": job.digest,
        "modality": what.modality,
        "table": dataset.digest(),
        "column": what.column,
        "id": what.carried,
        "rows": job.rows,
        "part_rows": job.part_rows,
        "batch_size": job.batch_size,
        "versions": job.versions,
        "made_from": {"space": what.space, "table": what.table},
    }
    names = [("row", pa.int64()), *([(what.carried, pa.null())] if what.carried else [])]
    schema = pa.schema([*names, ("embedding", pa.list_(pa.float32(), space.dim))])
    embedder = Embedder(job, space, dataset) if alone else None
    return Prepared(job, manifest, schema, embedder, here != what.space)


def devices(name: str) -> list[str]:
    """The devices that workers take turns on.

    Raises:
        UserError: if there is no such device.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    if name == "cuda" and count:
        return [f"cuda:{i}" for i in range(count)]
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"there is no device '{name}' here ({reason}); leave out --device") from None
    return [name]
