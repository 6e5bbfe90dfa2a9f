"""Items of any modalities, their vectors, and what finds the nearest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .items import Item
from .nearest import Nearest, choose


class Index:
    """Items of any modalities of a space, their vectors, and what finds the nearest.

    Inputs:
        space: its ``identity``.
        dim: ``D`` of its embeddings.
        items: what it holds.
        vectors: by modality ``(N, D)``, rows in the order of the modality's items.
        kinds: by modality, what the index of its vectors is.
    """

    def __init__(
        self,
        space: str,
        dim: int,
        items: Iterable[Item] = (),
        vectors: dict[str, np.ndarray] | None = None,
        kinds: dict[str, str] | None = None,
    ) -> None:
        self.space, self.dim, self.items = space, dim, list(items)
        self.vectors, self.kinds = vectors or {}, kinds or {}
        self.version: str | None = None
        self.graphs: dict[str, Any] = {}
        self._nearest: dict[str, Nearest] = {}
        self.numbers: dict[str, list[int]] = {}
        for number, item in enumerate(self.items):
            self.numbers.setdefault(item.modality, []).append(number)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those it holds items of, sorted."""
        return tuple(sorted(self.numbers))

    def nearest(self, modality: str) -> Nearest:
        """What finds the nearest items of a modality; a row is a place in ``numbers[modality]``."""
        if modality not in self._nearest:
            self._nearest[modality] = Nearest(
                self.vectors[modality], self.kinds.get(modality, "flat"), self.graphs.get(modality)
            )
        return self._nearest[modality]

    def changed(self, items: list[Item], vectors: dict[str, np.ndarray], kind: str | None) -> Index:
        """An index of other items in the place of this one; what still fits is kept.

        Inputs:
            kind: of every modality's index: one of ``KINDS``, "auto", or None to keep what was asked before.
        """
        new = Index(self.space, self.dim, items, vectors)
        new.version = self.version
        for name in new.modalities:
            had = self.kinds.get(name)
            # What "auto" chose follows the size; what somebody chose stays.
            auto = had is None or had == choose(len(self.vectors[name]))
            new.kinds[name] = choose(len(vectors[name]), kind or ("auto" if auto else str(had)))
            old = [self.items[i].key for i in self.numbers.get(name, ())]
            kept = [new.items[i].key for i in new.numbers[name][: len(old)]] == old
            if kept and new.kinds[name] == self.kinds.get(name):
                new.graphs[name] = self.graphs.get(name)
            new.nearest(name)
        return new
