"""What a measurement of a space must do, and what it is given to measure on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Items:
    """The distinct items of one modality in one split, embedded.

    Equal content is one item; a row with several alternatives has several; so items and rows are
    linked many to many.

    Inputs:
        vectors: ``(K, D)`` unit rows.
        links: ``(L, 2)`` long: item, row. Every item is in at least one row.
    """

    vectors: Tensor
    links: Tensor

    def __len__(self) -> int:
        return len(self.vectors)


class Split(Protocol):
    """One split of a table, as a task sees it."""

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def labels(self) -> Tensor | None:
        """``(rows,)`` long, -1 = unknown; None when the data name no label."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""

    def embed(self, space: Any, modality: str) -> Items:
        """Every readable item of that modality; missing and unreadable cells have none."""

    def by(self, column: str) -> Split:
        """The same rows with the classes that another column of the table names."""

    def other(self, name: str) -> Split:
        """Another split of the same data, such as the one to fit a probe on; a ``UserError`` names them."""


@dataclass
class Report:
    """What a task found: numbers, tables (lists of rows) and matplotlib figures, by name.

    Inputs:
        intervals: by metric, low and high of its 95 % confidence interval; by bootstrap, unless the
            task says how else.
        chance: by metric, what a guess would give.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A question asked of a space. Answers with numbers; never trains it."""

    primary: ClassVar[str]
    """The metric that picks a checkpoint; always in the report."""

    higher_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """The modalities it embeds; it runs as soon as the space has them all."""

    @property
    def about(self) -> str:
        """What it measures, in a few characters; the task's id is ``name:about``."""
        return "+".join(self.modalities)

    @abstractmethod
    def run(self, space: Any, data: Split) -> Report:
        """Measure ``space`` on one split. ``metrics`` contains ``primary``."""
