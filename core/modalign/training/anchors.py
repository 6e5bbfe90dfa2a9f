"""Embeddings of the modalities that a stage leaves alone, made once instead of in every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import Loss
from modalign.space import Space

from .content import Embedded, Loaded, id_of
from .evaluate import embed_items
from .plan import StagePlan
from .reader import Reader
from .stage import Trained

MOST_BYTES = 1 << 30
"""Of embeddings kept for one modality; more rows than that are embedded batch by batch."""


class Anchor:
    """Gives rows of a modality as embeddings.

    Inputs:
        reader: of the modality.
        rows: that will be asked for.
    """

    def __init__(self, space: Space, reader: Reader, rows: Sequence[int]) -> None:
        self.reader = reader
        items, cells = embed_items(space, reader, list(rows))
        self.vectors: Tensor = items.vectors  # (K, D)
        self.place = {cell.key: i for i, (cell, _) in enumerate(cells)}

    def load(self, rows: Sequence[int] | np.ndarray, epoch: int) -> Loaded:
        """One batch of rows: for each, one readable alternative, the same that its reader draws."""
        ids, has, places = [0] * len(rows), [False] * len(rows), []
        for i, row in enumerate(map(int, rows)):
            for cell in self.reader.alternatives(row, epoch):
                place = self.place.get(cell.key)
                if place is not None:
                    ids[i], has[i] = id_of(cell.key), True
                    places.append(place)
                    break
        found = Embedded(self.vectors[places]) if places else None
        return Loaded(found, torch.tensor(has, dtype=torch.bool), torch.tensor(ids, dtype=torch.long))


def with_anchors(
    space: Space,
    stage: StagePlan,
    trained: Trained,
    readers: Mapping[str, Reader],
    losses: Mapping[str, tuple[float, Loss]],
    rows: Sequence[int],
) -> dict[str, Reader | Anchor]:
    """The readers of a stage, embeddings in the place of those whose features give the same ones always.

    A modality stays as it is if anything on its way is trained, its features are not cached or vary, or
    a loss asks for more than its embedding.
    """
    needs = frozenset[str]().union(*(loss.needs for _, loss in losses.values()))
    if needs & {"tokens", "teacher"} or space.projection.provides or stage.latent_mix is not None:
        return dict(readers)
    few = len(rows) * space.dim * 4 <= MOST_BYTES
    still = {
        m for m, r in readers.items() if few and r.cache is not None and not r.views and not trained.moves(m)
    }
    return {m: Anchor(space, r, rows) if m in still else r for m, r in readers.items()}
