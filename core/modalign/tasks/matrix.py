"""Every modality against every other: what meets in the space, trained together or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.contracts import Items, Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .class_recall import class_chance, class_hits, item_labels, offered_labels
from .joint import as_names, items_of
from .ranking import best_ranks, chance_at, join

GROUPED_DRAWS = 200
"""Bootstrap samples of a mean over pairs: rows are drawn with all their queries, which takes longer."""


class Matrix(Task):
    """Retrieval between every ordered pair of modalities that the space has.

    ``R@1``, the mean over the pairs whose modalities share a row; with labels ``class_R@1``, the mean
    over the pairs with labelled items on both sides, which need not share a row. ``worst_R@1`` of a
    pair. ``R@1_trained`` and ``R@1_untrained`` (likewise ``class_R@1_…``): the pairs that some stage
    aligned, and those that meet only because both met a third. Table ``pairs``, heat maps ``R@1``
    and ``class_R@1``; a star marks the pairs never trained together. In the intervals of the means a
    row is drawn with all its items of all modalities.

    Inputs:
        among: the modalities, two or more. It runs once the space has the first two, and measures
            those it has by then.

    Raises:
        UserError: if there are fewer than two, the split has no item of one, or no two share a row.
    """

    primary: ClassVar[str] = "R@1"

    def __init__(self, among: Iterable[str]) -> None:
        self.among = as_names(among)
        if len(self.among) < 2:
            raise UserError(f"matrix among {self.among[0]}: name two modalities or more")

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.among[:2]

    @property
    def about(self) -> str:
        return "+".join(self.among)

    def run(self, space: Any, data: Split) -> Report:
        here = [m for m in self.among if m in getattr(space, "modalities", self.among)]
        stages = getattr(space, "stages", ())
        items = {m: items_of(space, data, m) for m in here}
        found = [
            measured(a, b, items, data, trained=any({a, b} <= set(stage["align"]) for stage in stages))
            for a, b in permutations(here, 2)
        ]
        if not any(len(pair.hits) for pair in found):
            raise UserError(f"matrix: no row of split {data.name!r} has two of {', '.join(here)}")
        report = Report({}, tables={"pairs": [pair.row() for pair in found]})
        groups = {"": found, "_trained": trained(found), "_untrained": trained(found, False)}
        for name, chosen in groups.items():
            add_mean(report, f"R@1{name}", [(p.hits, p.chance) for p in chosen])
            add_mean(report, f"class_R@1{name}", [(p.class_hits, p.class_chance) for p in chosen])
        report.metrics["worst_R@1"] = min(p.value for p in found if p.value is not None)
        report.figures["R@1"] = heat_map(here, [(p, p.value) for p in found], "R@1")
        if "class_R@1" in report.metrics:
            shown = [(p, p.class_value) for p in found]
            report.figures["class_R@1"] = heat_map(here, shown, "class_R@1")
        return report


@dataclass(frozen=True)
class Pair:
    """How well one modality finds another.

    Inputs:
        trained: whether a stage aligned both.
        hits, class_hits: ``(Q, 2)`` long each: the first row of a query, and whether it found its
            answer first; none if nothing can be asked.
    """

    from_: str
    to: str
    trained: bool
    hits: Tensor
    chance: float
    class_hits: Tensor
    class_chance: float

    @property
    def value(self) -> float | None:
        return mean_of(self.hits)

    @property
    def class_value(self) -> float | None:
        return mean_of(self.class_hits)

    def row(self) -> dict[str, Any]:
        """The pair in the table."""
        row: dict[str, Any] = {"from": self.from_, "to": self.to, "trained": self.trained}
        for name, hits, chance in (
            ("R@1", self.hits, self.chance),
            ("class_R@1", self.class_hits, self.class_chance),
        ):
            low, high = interval(hits[:, 1].double()) if len(hits) else (None, None)
            row |= {name: mean_of(hits), f"{name} low": low, f"{name} high": high}
            row[f"{name} chance"] = chance if len(hits) else None
        return row


def measured(a: str, b: str, items: dict[str, Items], data: Split, trained: bool) -> Pair:
    """``a`` as queries, ``b`` as candidates."""
    queries, candidates = items[a], items[b]
    row = torch.full((len(queries),), data.rows)  # (N,)
    row = row.scatter_reduce(0, queries.links[:, 0].cpu(), queries.links[:, 1].cpu(), "amin")
    pairs = join(queries.links, candidates.links).to(queries.vectors.device)  # (L, 2)
    hits, chance = torch.zeros(0, 2, dtype=torch.long), 0.0
    if len(pairs):
        ranks = best_ranks(queries.vectors, candidates.vectors, pairs).cpu()  # (N,)
        known = ~ranks.isnan()  # (N,)
        hits = torch.stack([row[known], (ranks[known] <= 1).long()], 1)  # (Q, 2)
        chance = chance_at(1, pairs[:, 0].unique(return_counts=True)[1], len(candidates))
    of_class, class_guess = torch.zeros(0, 2, dtype=torch.long), 0.0
    if data.labels is not None:
        labels = offered_labels(data.labels, candidates)  # (rows,)
        labelled = item_labels(queries, labels)[:, 0].cpu().unique()  # (Q',)
        if len(labelled):
            right = class_hits(queries, candidates, labels).cpu()  # (Q',)
            of_class = torch.stack([row[labelled], right.long()], 1)  # (Q', 2)
            class_guess = class_chance(queries, candidates, labels)
    return Pair(a, b, trained, hits, chance, of_class, class_guess)


def trained(found: list[Pair], together: bool = True) -> list[Pair]:
    return [pair for pair in found if pair.trained == together]


def mean_of(hits: Tensor) -> float | None:
    return float(hits[:, 1].double().mean()) if len(hits) else None


def add_mean(report: Report, name: str, each: list[tuple[Tensor, float]]) -> None:
    """The mean over pairs of their share of hits, with interval and chance; nothing if there are none."""
    each = [(hits, chance) for hits, chance in each if len(hits)]
    if not each:
        return
    number = torch.cat([torch.full((len(hits),), i) for i, (hits, _) in enumerate(each)])  # (Q,)
    hits = torch.cat([hits for hits, _ in each])  # (Q, 2)
    values = torch.stack([number, hits[:, 1]], 1)  # (Q, 2)

    def mean(sample: Tensor) -> Tensor:
        counts = torch.bincount(sample[:, 0], minlength=len(each)).double()  # (pairs,)
        right = torch.bincount(sample[:, 0], sample[:, 1].double(), minlength=len(each))  # (pairs,)
        return (right / counts)[counts > 0].mean()

    report.metrics[name] = float(mean(values))
    report.intervals[name] = interval(values, mean, groups=hits[:, 0], draws=GROUPED_DRAWS)
    report.chance[name] = sum(chance for _, chance in each) / len(each)


def heat_map(names: list[str], cells: list[tuple[Pair, float | None]], title: str) -> Any:
    """Queries down, candidates across; a star where no stage trained the pair."""
    from matplotlib.figure import Figure

    values = torch.full((len(names), len(names)), torch.nan)
    side = 1.2 + 0.8 * len(names)
    drawn = Figure(figsize=(side + 1, side), layout="constrained")
    axes = drawn.subplots()
    for pair, value in cells:
        i, j = names.index(pair.from_), names.index(pair.to)
        star = "" if pair.trained else "*"
        if value is not None:
            values[i, j] = value
        text = f"{value:.2f}{star}" if value is not None else f"–{star}"
        axes.text(j, i, text, ha="center", va="center", color="white" if (value or 0) < 0.6 else "black")
    picture = axes.imshow(values.numpy(), vmin=0, vmax=1, cmap="viridis")
    axes.set_facecolor("0.6")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="finds", ylabel="asked with")
    axes.set_title(f"{title} (* never trained together)", fontsize=10)
    drawn.colorbar(picture, ax=axes, shrink=0.8)
    return drawn
