"""Groups: how much worse than the average a space serves the group it serves worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from modalign.contracts import Items, Report, Split, Task
from modalign.errors import UserError

from .joint import items_of, joint_items
from .labelled import Labelled, by_class
from .ranking import best_ranks, chance_at, join
from .retrieval import Retrieval, item_labels
from .wrapped import built, spec_of
from .zero_shot import ZeroShot, class_name

SHOWN = 20
"""Groups in the figure: the worst ones."""


class Group(Task):
    """The accuracy of zero-shot or the recall of retrieval in every group: a class, or a value of a column.

    ``worst`` is the value in the worst group (Sagawa et al., arXiv 1911.08731), ``average`` that over all
    items, ``harm`` the average less the worst; the table has every group's own harm, below 0 where a
    group fares better. An item with several classes counts in each; items with none are left out. The
    intervals resample the items; with small groups they lean to a worse ``worst``, since the worst of
    several resampled groups is worse than each.

    Inputs:
        task: what is measured, as a plan writes it: ``{name: retrieval, from: audio, to: text}`` or
            ``{name: zero_shot, modality: image, classes: text}``.
        by: the column that names the groups (a speaker, a hospital, a sex); the data's label by default.
        k: an item is served if a right answer is among the first ``k``.
        at_least: a group of fewer items is shown in the table, but decides nothing.

    Raises:
        UserError: if ``task`` is neither, there are no labels, or no group has ``at_least`` items.
    """

    primary: ClassVar[str] = "worst"

    def __init__(self, task: Mapping[str, Any], by: str | None = None, k: int = 1, at_least: int = 1) -> None:
        self.spec, self.by, self.k, self.at_least = spec_of("group", task), by, k, at_least
        inner = built("group", self.spec)
        if not isinstance(inner, Retrieval | ZeroShot):
            raise UserError(
                f"group task {self.spec.name}: only retrieval and zero_shot are measured by group"
            )
        self.inner = inner
        if k < 1 or at_least < 1:
            raise UserError(f"group k {k}, at_least {at_least}: both start at 1")

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.inner.modalities

    @property
    def about(self) -> str:
        return f"{self.spec.name}:{self.inner.about}" + (f":{self.by}" if self.by else "")

    def run(self, space: Any, data: Split) -> Report:
        grouped = data.by(self.by) if self.by else data
        if grouped.labels is None:
            raise UserError("name the column of the groups: `by` of the task, or `label` of the plan's data")
        items, ranks, positives, candidates = ranked(self.inner, space, data)
        pairs = item_labels(items, grouped.labels).cpu()  # (M, 2) item, group
        pairs = pairs[~ranks[pairs[:, 0]].isnan()]
        size = pairs[:, 1].bincount(minlength=1)  # (G,)
        counted = pairs[size[pairs[:, 1]] >= self.at_least]  # (M', 2)
        if not len(counted):
            raise UserError(
                f"group {self.about}: split {data.name!r} has no group of at least {self.at_least} measured "
                "item(s); check the label column, or lower at_least"
            )
        right = ranks <= self.k  # (N,)
        judged = Labelled(items.vectors.cpu(), pairs).keep(counted)
        kept = right[counted[:, 0].unique()]  # (N',)
        found = {
            "worst": by_class(judged, kept, lambda shares, counts: shares.min()),
            "average": by_class(judged, kept, mean),
            "harm": by_class(judged, kept, lambda shares, counts: mean(shares, counts) - shares.min()),
        }
        average = found["average"][0]
        rows: list[dict[str, Any]] = []
        for group in pairs[:, 1].unique().tolist():
            members = pairs[pairs[:, 1] == group, 0]  # (n,)
            value = float(right[members].double().mean())
            row = {"group": class_name(grouped, group), "items": len(members), "value": value}
            guess = chance_at(self.k, positives[members], candidates)
            rows.append(row | {"chance": guess, "harm": average - value})
        rows.sort(key=lambda row: row["value"])
        enough = [row for row in rows if row["items"] >= self.at_least]
        sizes = {"items": len(judged), "left_out": len(items) - len(judged), "groups": len(enough)}
        return Report(
            {name: value for name, (value, _) in found.items()},
            intervals={name: between for name, (_, between) in found.items()},
            chance={
                "worst": min(row["chance"] for row in enough),
                "average": chance_at(self.k, positives[counted[:, 0]], candidates),
            },
            tables={"groups": rows, "sizes": [sizes]},
            figures={"groups": figure(enough[:SHOWN], average)},
        )


def ranked(task: Retrieval | ZeroShot, space: Any, data: Split) -> tuple[Items, Tensor, Tensor, int]:
    """The items that are asked, ``(N,)`` ranks of their best answer, NaN if none, ``(N,)`` how many are
    right, and how many there are."""
    if isinstance(task, Retrieval):
        items = joint_items(space, data, task.from_, task.combine)
        offered = items_of(space, data, task.to)
        answers, candidates = join(items.links, offered.links), offered.vectors  # (L, 2), (K, D)
    else:
        items = joint_items(space, data, task.modality, task.combine)
        candidates, answers, _ = task.prototypes(space, data, items)  # (C, D), (L, 2)
    vectors = items.vectors  # (N, D)
    ranks = best_ranks(vectors, candidates.to(vectors), answers.to(vectors.device)).cpu()  # (N,)
    return items, ranks, answers[:, 0].cpu().bincount(minlength=len(items)), len(candidates)


def mean(shares: Tensor, counts: Tensor) -> Tensor:
    """Over items: ``(G,)`` shares weighed by ``(G,)`` sizes."""
    return (shares * counts).sum() / counts.sum()


def figure(rows: list[dict[str, Any]], average: float) -> Any:
    """A bar per group, the worst on top, and the average as a line."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(5, 1 + 0.25 * len(rows)), layout="constrained")
    axes = drawing.subplots()
    axes.barh([f"{row['group']} ({row['items']})" for row in rows], [row["value"] for row in rows])
    axes.axvline(average, linestyle=":", color="grey")
    axes.invert_yaxis()
    axes.set_xlabel("value (dotted: the average)")
    return drawing
