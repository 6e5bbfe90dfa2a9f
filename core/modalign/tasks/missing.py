"""What a task loses as modalities of its queries are dropped, and what each of them is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

from modalign.contracts import Report, Split, Task
from modalign.errors import UserError
from modalign.spec import Spec

from .joint import as_names
from .views import SomeRows, rows_with_all
from .wrapped import Found, built, primary_of, spec_of

MOST = 6
"""Modalities that can be dropped; the task runs once for each of their 63 subsets."""

Subset = tuple[str, ...]


class Missing(Task):
    """Run a task with every subset of its query's modalities, on the rows that have them all.

    The numbers are the inner task's primary: ``full`` with every modality, ``mean`` over all subsets
    (what to expect when nothing is known about what will be there), ``worst`` of the subsets,
    ``without_<m>`` without one. ``importance_<m>`` is the Shapley value: the mean gain by adding
    ``m``, over all orders in which the modalities could arrive (Shapley 1953); the importances add
    up to ``full`` less the task's chance. Tables: ``subsets``, ``importance``. The items that answer
    stay the same throughout.

    Inputs:
        task: the inner task as a plan writes it, such as ``{name: retrieval, from: [audio, text],
            to: image}``.
        over: the argument that holds the modalities; default: ``from`` or ``modality``.

    Raises:
        UserError: if the task cannot be built, its query has fewer than 2 or more than 6 modalities,
            lower is better in it, or no row has them all.
    """

    primary: ClassVar[str] = "mean"

    def __init__(self, task: Mapping[str, Any], over: str | None = None) -> None:
        self.spec = spec_of("missing", task)
        self.over = over or next((k for k in ("from", "modality") if k in self.spec.args), "from")
        if self.over not in self.spec.args:
            raise UserError(f"missing over {self.over!r}: {self.spec.name} is not given it")
        self.dropped = as_names(self.spec.args[self.over])
        if not 2 <= len(self.dropped) <= MOST:
            raise UserError(
                f"missing: {self.spec.name} has {len(self.dropped)} modalities under {self.over!r}; "
                f"name 2 to {MOST}, one of which can be dropped"
            )
        self.inner = {subset: built("missing", self.with_only(subset)) for subset in subsets(self.dropped)}

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.inner[self.dropped].modalities

    @property
    def about(self) -> str:
        return f"{self.spec.name}:{self.inner[self.dropped].about}"

    def with_only(self, subset: Subset) -> Spec:
        """The inner task with some of the modalities."""
        value = subset[0] if len(subset) == 1 else list(subset)
        return Spec(self.spec.name, {**self.spec.args, self.over: value})

    def run(self, space: Any, data: Split) -> Report:
        kept = rows_with_all(space, data, self.dropped)
        if not bool(kept.any()):
            raise UserError(f"missing: no row of split {data.name!r} has all of {', '.join(self.dropped)}")
        rows = SomeRows(data, kept, self.dropped, f"rows with {', '.join(self.dropped)}")
        found = {s: primary_of(task, task.run(space, rows)) for s, task in self.inner.items()}
        full = found[self.dropped]
        values = {s: f.value for s, f in found.items()}
        metrics = {
            "mean": sum(values.values()) / len(values),
            "full": full.value,
            "worst": min(values.values()),
        }
        importance = shapley(self.dropped, {(): full.chance or 0.0, **values})
        for m in self.dropped:
            metrics[f"without_{m}"] = values[without(self.dropped, m)]
            metrics[f"importance_{m}"] = importance[m]
        by_size = sorted(found, key=lambda s: (len(s), -values[s]))
        tables: dict[str, list[dict[str, Any]]] = {
            "subsets": [{"modalities": " + ".join(s), "count": len(s), **found[s].row()} for s in by_size],
            "importance": [
                {
                    "modality": m,
                    "importance": importance[m],
                    "alone": values[m,],
                    "drop_without": full.value - values[without(self.dropped, m)],
                }
                for m in sorted(self.dropped, key=lambda m: -importance[m])
            ],
        }
        return Report(metrics, *self.beside(found), tables=tables)

    def beside(self, found: dict[Subset, Found]) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
        """Intervals and chance of the metrics that are one subset's number."""
        which = {"full": self.dropped}
        which |= {f"without_{m}": without(self.dropped, m) for m in self.dropped}
        intervals, chance = {}, {}
        for name, subset in which.items():
            one = found[subset]
            if one.low is not None and one.high is not None:
                intervals[name] = (one.low, one.high)
            if one.chance is not None:
                chance[name] = one.chance
        known = [f.chance for f in found.values() if f.chance is not None]
        if len(known) == len(found):
            chance["mean"] = sum(known) / len(known)
        return intervals, chance


def subsets(modalities: Subset) -> list[Subset]:
    """Every one that is not empty, in the order of ``modalities``."""
    return [s for n in range(1, len(modalities) + 1) for s in combinations(modalities, n)]


def without(modalities: Subset, one: str) -> Subset:
    return tuple(m for m in modalities if m != one)


def shapley(players: Subset, value: Mapping[Subset, float]) -> dict[str, float]:
    """``Σ_S |S|! (n - |S| - 1)! / n! · (v(S + m) - v(S))`` over the subsets ``S`` without ``m``."""
    n = len(players)
    found = {}
    for m in players:
        total = 0.0
        for others in [(), *subsets(without(players, m))]:
            joined = tuple(p for p in players if p == m or p in others)
            weight = 1 / (n * math.comb(n - 1, len(others)))
            total += weight * (value[joined] - value[others])
        found[m] = total
    return found
