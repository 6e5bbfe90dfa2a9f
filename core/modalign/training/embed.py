"""Writes embeddings of values or of a table's column as Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from modalign.space import inference
from modalign.space_files import load

from .content import stack
from .data import Dataset
from .data_plan import Data
from .quarantine import Quarantine
from .reader import Reader


def embed_values(space: str, modality: str, values: Sequence[str], out: Path, batch_size: int) -> int:
    """One row per value: ``value``, ``embedding``. Returns their number."""
    vectors = load(space).embed(modality, values, batch_size)
    _write(out, {"value": pa.array(list(values))}, vectors)
    return len(vectors)


def embed_table(
    space: str, modality: str, table: Path, column: str, out: Path, batch_size: int
) -> tuple[int, int]:
    """One row per readable cell (a list cell has several): ``row``, ``embedding``.

    Returns their number and that of the cells that could not be read, which
    ``<out>.quarantine.csv`` explains.

    Raises:
        UserError: if the space, the modality, the table or the column is not there.
    """
    loaded = load(space)
    literal = [modality] if loaded.reader(modality).literal else []
    data = Data(table=str(table.absolute()), columns={modality: column}, max_bad=1.0)
    dataset = Dataset(data, table.parent, [modality], literal)
    bad = out.with_name(f"{out.name}.quarantine.csv")
    bad.unlink(missing_ok=True)
    quarantine = Quarantine(bad)
    reader = Reader(loaded, modality, dataset, quarantine, seed=0, cached=True)
    cells = [(cell, row) for row in range(len(dataset)) for cell in dataset.cells(modality, row)]
    rows, vectors = [], [torch.empty(0, loaded.dim)]
    with inference(loaded):
        for start in range(0, len(cells), batch_size):
            chunk = cells[start : start + batch_size]
            found = [
                (row, f) for (_, row), f in zip(chunk, reader.features(chunk), strict=True) if f is not None
            ]
            if found:
                rows += [row for row, _ in found]
                vectors.append(loaded.project(modality, stack([f for _, f in found])).vectors.float())
    _write(out, {"row": pa.array(rows, pa.int64())}, torch.cat(vectors))
    return len(rows), len(cells) - len(rows)


def _write(out: Path, columns: dict[str, pa.Array], vectors: Tensor) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    flat = pa.array(vectors.reshape(-1).numpy())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    part = out.with_name(f".{out.name}.part")
    pq.write_table(pa.table({**columns, "embedding": embedding}), part)
    os.replace(part, out)
