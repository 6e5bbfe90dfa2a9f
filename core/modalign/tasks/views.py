"""Some rows of a split, as a split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from modalign.contracts import Items, Split


@dataclass(frozen=True)
class SomeRows:
    """A split in which some modalities have items in some rows only; the rows keep their numbers.

    Inputs:
        whole: the split.
        kept: ``(rows,)`` bool.
        limited: the modalities that the other rows lose; None: all of them.
        what: which rows these are, for messages.
    """

    whole: Split
    kept: Tensor
    limited: tuple[str, ...] | None
    what: str

    @property
    def name(self) -> str:
        return f"{self.whole.name}, {self.what}"

    @property
    def rows(self) -> int:
        return self.whole.rows

    @property
    def labels(self) -> Tensor | None:
        labels = self.whole.labels
        if labels is None or self.limited is not None:
            return labels
        return labels.masked_fill(~self.kept.to(labels.device), -1)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    def embed(self, space: Any, modality: str) -> Items:
        items = self.whole.embed(space, modality)
        if self.limited is not None and modality not in self.limited:
            return items
        links = items.links[self.kept.to(items.links.device)[items.links[:, 1]]]  # (L', 2)
        number, place = links[:, 0].unique(return_inverse=True)  # (K',), (L',)
        return Items(items.vectors[number.to(items.vectors.device)], torch.stack([place, links[:, 1]], 1))

    def by(self, column: str) -> Split:
        return replace(self, whole=self.whole.by(column))

    def other(self, name: str) -> Split:
        """Another split, whole."""
        return self.whole.other(name)


def rows_with_all(space: Any, data: Split, modalities: Iterable[str]) -> Tensor:
    """``(rows,)`` bool: those that have an item of each modality."""
    kept = torch.ones(data.rows, dtype=torch.bool)  # (rows,)
    for modality in modalities:
        here = torch.zeros_like(kept)  # (rows,)
        here[data.embed(space, modality).links[:, 1].cpu()] = True
        kept &= here
    return kept
