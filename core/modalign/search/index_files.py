"""The index folder: written whole or not at all, and of one space."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modalign import __version__
from modalign.errors import UserError, short
from modalign.plain_array import map_array
from modalign.space_files import WEIGHTS, download

from .index import Index
from .items import ABOUT, ITEMS, Item, Place
from .nearest import KINDS, read_graph

FORMAT = 1
SCHEMA = pa.schema(
    [
        ("modality", pa.string()),
        ("key", pa.binary(16)),
        ("file", pa.binary()),
        ("column", pa.string()),
        ("row", pa.int64()),
        ("part", pa.int64()),
        ("literal", pa.string()),
    ]
)


def identity(space: str | os.PathLike[str]) -> str:
    """What tells a space from others: the SHA-256 of its ``model.safetensors``.

    Raises:
        UserError: if there is no space.
    """
    folder = Path(download(os.fspath(space)))
    for file in (folder / WEIGHTS, folder / "space" / WEIGHTS):
        if file.is_file():
            digest = hashlib.sha256()
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
            return digest.hexdigest()
    raise UserError(f"{space} is not a space: it has no {WEIGHTS}")


def open_index(folder: Path, space: str) -> Index:
    """The index in a folder, of that space.

    Inputs:
        space: its ``identity``.

    Raises:
        UserError: if there is none, it is damaged, or of another space.
    """
    _finish(folder)
    if not (folder / ABOUT).is_file():
        raise UserError(f"{folder} is not an index. Run: modalign search SPACE FOLDER --index {folder}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        _check_about(about)
        if about["format"] != FORMAT:
            told = short(str(about["format"]), 80)
            raise UserError(
                f"the index {folder} has format {told}; this modalign {__version__} reads {FORMAT}"
            )
        if about["space"] != space:
            raise UserError(
                f"the index {folder} is of another space ({about['space'][:12]}, this one is "
                f"{space[:12]}): their vectors do not compare. Index again, with another --index"
            )
        index = Index(space, about["dim"], _read_items(folder / ITEMS))
        index.version = about["version"]
        for i, (name, kind) in enumerate(about["modalities"].items()):
            index.kinds[name] = kind
            index.vectors[name] = map_array(folder / f"{i}.npy")
            index.graphs[name] = graph = read_graph(folder / f"{i}.faiss")
            if index.vectors[name].shape != (len(index.numbers[name]), index.dim):
                raise ValueError(f"its {name} vectors and items differ in number")
            if (kind != "flat") != (graph is not None and graph.ntotal == len(index.vectors[name])):
                raise ValueError(f"its {name} vectors and their {kind} index differ")
        if index.vectors.keys() != index.numbers.keys():
            raise ValueError("its items and vectors differ in their modalities")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        RecursionError,
        pa.ArrowException,
    ) as error:
        raise UserError(
            f"the index {folder} is damaged: {short(str(error))}. Delete the folder, and index again"
        ) from None
    return index


def _check_about(about: Any) -> None:
    kinds = {"space": str, "dim": int, "version": str, "modalities": dict}
    if not isinstance(about, dict) or not all(isinstance(about[key], kind) for key, kind in kinds.items()):
        raise ValueError(f"{ABOUT} is not what was written")
    unknown = [kind for kind in about["modalities"].values() if kind not in KINDS]
    if unknown:
        raise ValueError(f"{ABOUT} names an unknown kind of index: {short(str(unknown[0]), 80)}")


def save_index(index: Index, folder: Path, unreadable: Iterable[tuple[str, str]] = ()) -> None:
    """Write an index beside ``folder`` and move it there.

    Inputs:
        unreadable: places and reasons, for ``unreadable.csv``.

    Raises:
        UserError: if something else is there, or another process has written it meanwhile.
    """
    folder = folder.absolute()
    _finish(folder)
    _check_free(folder, index.version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new.", dir=folder.parent))
    try:
        new.chmod(0o755)
        pq.write_table(pa.Table.from_pylist([_row(item) for item in index.items], SCHEMA), new / ITEMS)
        for i, name in enumerate(index.modalities):
            np.save(new / f"{i}.npy", np.ascontiguousarray(index.vectors[name]), allow_pickle=False)
            index.nearest(name).write(new / f"{i}.faiss")
        with (new / "unreadable.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("place", "reason"), *unreadable])
        about = {"format": FORMAT, "modalign": __version__, "version": uuid.uuid4().hex}
        about |= {"space": index.space, "dim": index.dim}
        about |= {"modalities": {name: index.nearest(name).kind for name in index.modalities}}
        (new / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        old = folder.with_name(f".{folder.name}.old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    index.version = str(about["version"])


def _finish(folder: Path) -> None:
    """Put back the old folder, if a process was killed between the two moves of ``save``."""
    old = folder.absolute().with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def _check_free(folder: Path, version: str | None) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds something else than an index: choose another --index") from None
    if found != version:
        raise UserError(f"another process has written the index {folder} meanwhile: run this again")


def _row(item: Item) -> dict[str, Any]:
    place = item.place
    where = {"file": os.fsencode(place.file), "column": place.column, "row": place.row, "part": place.part}
    return {"modality": item.modality, "key": item.key, **where, "literal": item.literal}


def _read_items(file: Path) -> list[Item]:
    return [
        Item(
            r["modality"],
            r["key"],
            Place(os.fsdecode(r["file"]), r["column"], r["row"], r["part"]),
            r["literal"],
        )
        for r in pq.read_table(file, schema=SCHEMA).to_pylist()
    ]
