"""A task inside another's arguments: built, run, and its primary number read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modalign.contracts import Report, Task
from modalign.errors import UserError
from modalign.plugin import loader
from modalign.spec import Spec


@dataclass(frozen=True)
class Found:
    """A task's primary number, the interval around it and its chance, where the task gives them."""

    value: float
    low: float | None
    high: float | None
    chance: float | None

    def row(self) -> dict[str, float | None]:
        """Its part of a table's row."""
        return {"value": self.value, "low": self.low, "high": self.high, "chance": self.chance}


def spec_of(who: str, task: Any) -> Spec:
    """The inner task as a plan writes it: ``{name: retrieval, from: audio, to: image}``.

    Raises:
        UserError: if it is not that.
    """
    try:
        return Spec.of(dict(task) if isinstance(task, Mapping) else task)
    except ValueError as error:
        raise UserError(f"{who} task: {error}") from None


def built(who: str, spec: Spec) -> Task:
    """The inner task.

    Raises:
        UserError: if there is none of that name, its arguments are wrong, or lower is better.
    """
    target = loader.load("tasks", spec.name)
    wrong = spec.check(target)
    if wrong:
        raise UserError(f"{who} task: {'; '.join(wrong)}")
    task: Task = target(**spec.keywords())
    if not task.higher_is_better:
        raise UserError(f"{who} task {spec.name}: its {task.primary} is better when lower; take another")
    return task


def primary_of(task: Task, report: Report) -> Found:
    """What the report says of the task's primary metric."""
    low, high = report.intervals.get(task.primary, (None, None))
    chance = report.chance.get(task.primary, report.metrics.get("chance"))
    return Found(report.metrics[task.primary], low, high, chance)
