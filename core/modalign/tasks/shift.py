"""Shift: what a task loses on another split, or on other classes, than it is usually measured on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from modalign.contracts import Report, Split, Task
from modalign.errors import UserError, suggest

from .views import SomeRows
from .wrapped import Found, built, primary_of, spec_of

NEAR_0 = 1e-3
"""Shares are kept this far from 0 and 1 before the logit."""


class Shift(Task):
    """Run a task on the plan's split and on a shifted one, and compare its primary number.

    ``reference``, ``shifted``, ``drop = reference - shifted``; and ``effective_robustness``, how far
    ``shifted`` lies above what other models with that ``reference`` reach (Taori et al., arXiv
    2007.00644, §2): ``shifted - σ(a · logit(reference) + b)``, ``a`` and ``b`` fitted to the
    baseline by least squares on logits. Positive: more robust than those models; its interval is
    that of ``shifted`` alone. The interval of ``drop`` combines those of both numbers, which are of
    different rows (Zou and Donner, Statistics in Medicine 2008). Table ``splits``.

    Inputs:
        task: the inner task as a plan writes it, such as ``{name: zero_shot, modality: image,
            classes: text}``; its primary must be better when higher.
        to: the name of the shifted split; or, instead,
        labels: the classes whose rows are the shifted ones, the other rows being the reference.
        baseline: ``[reference, shifted]`` of other models on the same two, two models or more, as
            shares between 0 and 1; without it there is no ``effective_robustness``.

    Raises:
        UserError: if the task cannot be built, not exactly one of ``to`` and ``labels`` is given, a
            split or class does not exist, a side has no row, or ``baseline`` is no list of pairs.
    """

    primary: ClassVar[str] = "shifted"

    def __init__(
        self,
        task: Mapping[str, Any],
        to: str | None = None,
        labels: Iterable[str] | None = None,
        baseline: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self.spec = spec_of("shift", task)
        self.inner = built("shift", self.spec)
        if (to is None) == (labels is None):
            raise UserError("shift: say what the shift is, by `to` (a split) or by `labels` (classes)")
        self.to = to
        self.labels = None if labels is None else (labels,) if isinstance(labels, str) else tuple(labels)
        self.line = None if baseline is None else fitted(baseline)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.inner.modalities

    @property
    def about(self) -> str:
        where = self.to if self.labels is None else "+".join(map(str, self.labels))
        return f"{self.spec.name}:{self.inner.about}=>{where}"

    def run(self, space: Any, data: Split) -> Report:
        sides = self.splits(data)
        both = [primary_of(self.inner, self.inner.run(space, side)) for side in sides]
        reference, shifted = both
        metrics = {
            "shifted": shifted.value,
            "reference": reference.value,
            "drop": reference.value - shifted.value,
        }
        intervals, chance = {}, {}
        for name, found in zip(("reference", "shifted"), both, strict=True):
            if found.low is not None and found.high is not None:
                intervals[name] = (found.low, found.high)
            if found.chance is not None:
                chance[name] = found.chance
        if len(intervals) == 2:
            intervals["drop"] = difference(reference, shifted)
        if self.line is not None:
            slope, offset = self.line
            expected = 1 / (1 + math.exp(-(slope * logit(reference.value) + offset)))
            metrics["effective_robustness"] = shifted.value - expected
            if "shifted" in intervals:
                low, high = intervals["shifted"]
                intervals["effective_robustness"] = (low - expected, high - expected)
        table = [
            {"split": side.name, "metric": self.inner.primary, **found.row()}
            for side, found in zip(sides, both, strict=True)
        ]
        return Report(metrics, intervals, chance, tables={"splits": table})

    def splits(self, data: Split) -> tuple[Split, Split]:
        """The reference and the shifted one."""
        if self.labels is None:
            assert self.to is not None
            if self.to == data.name:
                raise UserError(f"shift to {self.to!r}: that is the split it starts from; name another")
            return data, data.other(self.to)
        if data.labels is None:
            raise UserError("shift by labels needs classes: add `label` to the plan's data")
        unknown = [name for name in self.labels if str(name) not in data.classes]
        if unknown:
            near = suggest(str(unknown[0]), data.classes)
            raise UserError(f"shift labels {unknown}: no such class{near} ({', '.join(data.classes)})")
        wanted = torch.tensor([data.classes.index(str(name)) for name in self.labels])
        labels = data.labels.cpu()  # (rows,)
        moved = torch.isin(labels, wanted)  # (rows,)
        stay = ~moved & (labels >= 0)  # (rows,)
        if not bool(moved.any()) or not bool(stay.any()):
            raise UserError(
                f"shift labels {list(self.labels)}: split {data.name!r} has {int(moved.sum())} rows of them "
                f"and {int(stay.sum())} of others; both must be there"
            )
        names = ", ".join(map(str, self.labels))
        return SomeRows(data, stay, None, f"without {names}"), SomeRows(data, moved, None, f"only {names}")


def difference(first: Found, second: Found) -> tuple[float, float]:
    """Between which values ``first - second`` lies, of two independent numbers with their intervals."""
    assert first.low is not None and first.high is not None  # noqa: PT018
    assert second.low is not None and second.high is not None  # noqa: PT018
    middle = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return middle - below, middle + above


def logit(share: float) -> float:
    share = min(max(share, NEAR_0), 1 - NEAR_0)
    return math.log(share / (1 - share))


def fitted(baseline: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Slope and offset of ``logit(shifted)`` by ``logit(reference)``, least squares.

    Raises:
        UserError: if there are no two different references, or a number is no share.
    """
    shape = "write baseline as [[reference, shifted], ...], shares of two models or more"
    try:
        points = [(float(a), float(b)) for a, b in baseline]
    except (TypeError, ValueError):
        raise UserError(f"shift baseline {baseline!r}: {shape}") from None
    if any(not 0 <= value <= 1 for point in points for value in point):
        raise UserError(f"shift baseline {baseline!r}: {shape}")
    x, y = ([logit(point[i]) for point in points] for i in range(2))
    if len(set(x)) < 2:
        raise UserError(f"shift baseline {baseline!r}: two models with different references are needed")
    middle = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - middle[0]) * (b - middle[1]) for a, b in zip(x, y, strict=True))
    slope /= sum((a - middle[0]) ** 2 for a in x)
    return slope, middle[1] - slope * middle[0]
