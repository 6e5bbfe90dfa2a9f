"""Runs tasks on a space: one split of a dataset, embedded, and what was found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import Items, Report, Task
from modalign.errors import UserError, suggest
from modalign.plugin import loader
from modalign.space import Space, inference

from .content import stack
from .data import Cell, Dataset
from .plan import TaskPlan
from .reader import CHUNK, Reader

log = logging.getLogger("modalign")


@dataclass
class TableSplit:
    """One split of a dataset as tasks see it; embeddings are made once per space state.

    Inputs:
        reader: gives the reader of a modality of this dataset.
        column: of the classes, instead of the one that the data name.
    """

    name: str
    dataset: Dataset
    reader: Callable[[str], Reader]
    column: str | None = None
    _items: dict[str, Items] = field(default_factory=dict)
    _others: dict[str, TableSplit] = field(default_factory=dict)
    _cells: dict[str, list[tuple[Cell, int]]] = field(default_factory=dict)

    @cached_property
    def row_numbers(self) -> list[int]:
        return [int(row) for row in self.dataset.splits.get(self.name, ())]

    @property
    def rows(self) -> int:
        return len(self.row_numbers)

    @property
    def labels(self) -> Tensor | None:
        if self._named is None:
            return None
        return torch.from_numpy(self._named[1][self.row_numbers])

    @property
    def classes(self) -> tuple[str, ...]:
        return () if self._named is None else self._named[0]

    @cached_property
    def _named(self) -> tuple[tuple[str, ...], np.ndarray] | None:
        """The names of the classes, and the class of every row of the dataset."""
        if self.column is not None:
            return self.dataset.labelled(self.column)
        return (self.dataset.classes, self.dataset.labels) if self.dataset.has_labels else None

    def by(self, column: str | None) -> TableSplit:
        """The same rows and embeddings with the classes of another column; None: with these."""
        if column in (None, self.column):
            return self
        known = self.dataset.columns
        if column not in known:
            near = f"{suggest(column, known)} (they have: {', '.join(known)})"
            raise UserError(f"the data have no column {column!r}{near}")
        return replace(self, column=column, _others={})

    def other(self, name: str) -> TableSplit:
        """Another split of the dataset; every split of one task shares what was embedded."""
        if name not in self.dataset.splits:
            known = ", ".join(sorted(self.dataset.splits))
            raise UserError(
                f"the data have no split {name!r}{suggest(name, self.dataset.splits)} (they have: {known})"
            )
        self._others.setdefault(self.name, self)
        if name not in self._others:
            self._others[name] = TableSplit(
                name, self.dataset, self.reader, self.column, _others=self._others
            )
        return self._others[name]

    def embed(self, space: Space, modality: str) -> Items:
        """Every readable item of the modality, with the rows that hold it."""
        if modality not in self._items:
            reader = self.reader(modality)
            self._items[modality], self._cells[modality] = embed_items(space, reader, self.row_numbers)
        return self._items[modality]

    def cell(self, modality: str, item: int) -> tuple[Cell, int]:
        """The content of an embedded item, and a row that holds it."""
        return self._cells[modality][item]


def embed_items(space: Space, reader: Reader, rows: list[int]) -> tuple[Items, list[tuple[Cell, int]]]:
    """The distinct items of some rows, embedded, and their cells; row ``i`` of the links is ``rows[i]``."""
    device = space.logit_scale.device
    cells = reader.distinct(rows)
    vectors = [torch.empty(0, space.dim)]
    index: dict[bytes, int] = {}
    kept: list[tuple[Cell, int]] = []
    with inference(space):
        for start in range(0, len(cells), CHUNK):
            chunk = cells[start : start + CHUNK]
            found = [
                (pair, f) for pair, f in zip(chunk, reader.features(chunk), strict=True) if f is not None
            ]
            if not found:
                continue
            features = stack([f for _, f in found])
            batch = type(features)(features.tokens.to(device), features.mask.to(device))
            vectors.append(space.project(reader.name, batch).vectors.float().cpu())
            for (cell, row), _ in found:
                index[cell.key] = len(index)
                kept.append((cell, row))
    links = [
        (index[cell.key], i) for i, row in enumerate(rows) for cell in reader.cells(row) if cell.key in index
    ]
    return Items(torch.cat(vectors), torch.tensor(links, dtype=torch.long).reshape(-1, 2)), kept


def build_task(plan: TaskPlan) -> tuple[str, Task]:
    """A task of the plan and its id."""
    spec = plan.spec()
    task = loader.load("tasks", spec.name)(**spec.keywords())
    return plan.id or ":".join(filter(None, (spec.name.rpartition(":")[2], task.about, plan.label))), task


@dataclass(frozen=True)
class Measured:
    """A task that was run, on what, and what it found."""

    task: Task
    split: TableSplit
    report: Report


def task_splits(
    dataset: Callable[[TaskPlan], Dataset | None], reader: Callable[[Dataset, str], Reader]
) -> Callable[[TaskPlan], TableSplit]:
    """The rows that each task asks for; tasks on the same ones share what is embedded.

    Inputs:
        dataset: the tables that a task measures on.
        reader: of a modality of them.
    """
    splits: dict[tuple[int, str], TableSplit] = {}

    def split(plan: TaskPlan) -> TableSplit:
        tables = dataset(plan)
        assert tables is not None
        own = TableSplit(plan.split, tables, lambda m: reader(tables, m))
        return splits.setdefault((id(tables), plan.split), own)

    return split


def run_tasks(
    space: Space, plans: Iterable[TaskPlan], split: Callable[[TaskPlan], TableSplit]
) -> dict[str, Measured]:
    """Every task whose modalities the space has, by id; one that cannot be measured is named in a warning.

    Inputs:
        split: the rows that a task asks for.
    """
    found = {}
    for plan in plans:
        name, task = build_task(plan)
        if set(task.modalities) <= set(space.modalities):
            try:
                asked = split(plan).by(plan.label)
                report = task.run(space, asked)
            except UserError as error:
                log.warning("task %s: %s", name, error)
                continue
            report.metrics = {k: float(v) for k, v in report.metrics.items()}
            found[name] = Measured(task, asked, report)
    return found
