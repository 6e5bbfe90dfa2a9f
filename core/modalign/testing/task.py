"""Checks of a task: its primary number exists, repeats, and favours true pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modalign.contracts import Items, Report, Task

from .tools import expect, seeded

Make = Callable[[], Task]

CLASSES, ROWS = 6, 24


@dataclass
class ExampleSplit:
    """A split of 24 rows in 6 classes whose embeddings are given; ``vectors {modality: (24, D)}``."""

    vectors: dict[str, Tensor]
    name: str = "test"
    rows: int = ROWS
    labels: Tensor | None = field(default_factory=lambda: label_of_row())
    classes: tuple[str, ...] = tuple(f"class {i}" for i in range(CLASSES))

    def embed(self, space: Any, modality: str) -> Items:
        return Items(self.vectors[modality], torch.arange(ROWS).unsqueeze(1).expand(-1, 2))

    def by(self, column: str) -> ExampleSplit:
        """Every column names the same classes."""
        return self

    def other(self, name: str) -> ExampleSplit:
        """The same rows under another name; those of "train" agree: a probe learns there."""
        return replace(example_split(list(self.vectors)) if name == "train" else self, name=name)


class ExampleSpace:
    """A space in which a class's name lies where the class does."""

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = tuple(modalities)

    def embed(self, modality: str, values: Sequence[Any]) -> Tensor:
        """``(N, D)``: the centre of the class a value ends with, else the first one's."""
        numbers = [str(v).strip().rpartition(" ")[2] for v in values]
        classes = [int(n) % CLASSES if n.isdigit() else 0 for n in numbers]
        return centres()[torch.tensor(classes)]

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b.T


def label_of_row() -> Tensor:
    """``(ROWS,)``: classes in blocks, so that rows moved by one are not merely classes by other names."""
    return torch.arange(ROWS) * CLASSES // ROWS


def centres() -> Tensor:
    """``(CLASSES, D)`` unit rows, one per class."""
    return torch.eye(32)[:CLASSES]


def example_split(modalities: Sequence[str], true: bool = True) -> ExampleSplit:
    """Rows whose modalities agree; or, if not ``true``, the ``i``-th modality ``i`` rows, so classes, off."""
    with seeded(0):
        row = torch.randn(ROWS, 32)  # (rows, D)
        own = normalize(2 * centres()[label_of_row()] + 0.2 * row, dim=1)
        vectors = {m: normalize(own + 0.02 * torch.randn(ROWS, 32), dim=1) for m in modalities}
    if not true:
        vectors = {m: v.roll(i + 1, 0) for i, (m, v) in enumerate(vectors.items())}
    return ExampleSplit(vectors)


def check_task_reports_its_primary(make: Make) -> None:
    """``run`` gives a ``Report`` of finite numbers with ``primary`` among them."""
    task = make()
    expect(bool(task.modalities) and bool(task.about), "modalities and about must say what is measured")
    report = _run(task)
    expect(isinstance(report, Report), f"run gave {type(report).__name__}, not Report")
    expect(task.primary in report.metrics, f"no {task.primary!r} among {', '.join(report.metrics) or 'none'}")
    for name, value in report.metrics.items():
        expect(
            isinstance(value, int | float) and math.isfinite(value),
            f"metric {name!r} is {value!r}, expected a finite number",
        )


def check_task_ranks_true_pairs_first(make: Make) -> None:
    """The primary number is better where rows agree than where they are shifted by one."""
    task = make()
    true, wrong = (_run(make(), t).metrics[task.primary] for t in (True, False))
    better = true > wrong if task.higher_is_better else true < wrong
    expect(better, f"{task.primary} is {true:.4g} for true pairs, {wrong:.4g} for wrong ones")


def check_task_is_deterministic(make: Make) -> None:
    """The same space and split give the same numbers, whatever the global generators."""
    found = []
    for noise in (1, 2):
        with seeded(noise):
            found.append(_run(make()).metrics)
    expect(found[0] == found[1], f"two runs gave {found[0]} and {found[1]}")


def _run(task: Task, true: bool = True) -> Report:
    return task.run(ExampleSpace(task.modalities), example_split(task.modalities, true))


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_task_reports_its_primary,
    check_task_ranks_true_pairs_first,
    check_task_is_deterministic,
)
