"""Joins the finished parts into one Parquet file, a part at a time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..quarantine import COLUMNS
from .cost import PartCost, total
from .parts import Bad, part_path, read_note

METADATA = b"modalign"
"""The key of the file's own metadata: what made it, and what that took."""


def merge(
    folder: Path, parts: range, out: Path, bad: Path, schema: pa.Schema, modality: str, about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``out``, a row group per part, and ``bad``, what could not be read; each whole or not at all.

    Inputs:
        schema: of a part without rows.
        about: for the file's metadata; the cost is added.

    Returns the cost.
    """
    types = schema
    costs: list[PartCost] = []
    new, new_bad = (path.with_name(f".{path.name}.part") for path in (out, bad))
    with new_bad.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        found = False
        for part in parts:
            own, cost, unreadable = read_note(part_path(folder, part))
            types = _unified(types, own)
            costs.append(cost)
            for table, row, reason in _first_of_row(unreadable):
                writer.writerow((table, row, modality, reason))
                found = True
    cost_of_all = {**total(costs), "seconds": about["seconds"]}
    note = json.dumps({**about, "cost": cost_of_all}, default=str)
    types = types.with_metadata({METADATA: note})
    with new.open("wb") as file:
        with pq.ParquetWriter(file, types) as whole:
            for part in parts:
                table = pq.ParquetFile(part_path(folder, part)).read()
                if len(table):
                    whole.write_table(_fitted(table, types), row_group_size=len(table))
        file.flush()
        os.fsync(file.fileno())  # before anybody removes the parts
    os.replace(new, out)
    if found:
        os.replace(new_bad, bad)
    else:
        new_bad.unlink()
        bad.unlink(missing_ok=True)
    return cost_of_all


def _unified(types: pa.Schema, own: pa.Schema) -> pa.Schema:
    """A schema for both; carried values become text where no type holds all of them as they are."""
    carried = [name for name in types.names if name not in ("row", "embedding")]
    for name in carried:
        kinds = [schema.field(name).type for schema in (types, own)]
        alike = kinds[0] == kinds[1] or any(map(pa.types.is_null, kinds))
        if not alike and not any(
            all(map(kind, kinds)) for kind in (pa.types.is_integer, pa.types.is_floating)
        ):
            return types.set(types.get_field_index(name), pa.field(name, pa.string()))
    return pa.unify_schemas([types, own], promote_options="permissive")


def _fitted(table: pa.Table, types: pa.Schema) -> pa.Table:
    """A part's table with the types of all parts."""
    columns = []
    for column, field in zip(table.columns, types, strict=True):
        if pa.types.is_string(field.type) and not pa.types.is_string(column.type):
            texts = [None if value is None else str(value) for value in column.to_pylist()]
            columns.append(pa.array(texts, pa.string()))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, types)


def _first_of_row(bad: Bad) -> Iterator[tuple[str, int, str]]:
    """One line per row, as everywhere, however many alternatives of its cell are unreadable."""
    seen: set[tuple[str, int]] = set()
    for table, row, reason in bad:
        if (table, row) not in seen:
            seen.add((table, row))
            yield table, row, reason
