"""A cell that may be kept although its value lies in a dataset larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cells import Cell
from .data import Dataset
from .table import Table


class MappedCell(Cell):
    """A cell that knows its key and size, and has its value read from disk whenever it is asked for."""

    def __init__(self, cell: Cell, read: Callable[[], Any]) -> None:
        # Straight into the instance, which is frozen, and where the cached key of a cell lies too.
        self.__dict__.update(key=cell.key, _size=cell.size, _read=read)

    @property
    def value(self) -> Any:  # type: ignore[override]
        return self.__dict__["_read"]()

    @property
    def size(self) -> int:
        return int(self.__dict__["_size"])


def lasting(cell: Cell, number: int, dataset: Dataset, modality: str, row: int) -> Cell:
    """The cell, to be kept for every row of a dataset: without its value where that is mapped from disk.

    Inputs:
        number: of the cell among the alternatives in the row.
    """
    table, local = dataset.locate(row)
    if not (isinstance(table, Table) and table.mapped) or isinstance(cell.value, Path):
        return cell
    return MappedCell(cell, lambda: table.cells(modality, local)[number].value)
