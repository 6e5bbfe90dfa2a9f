"""NT-Xent: each item finds its other view among all views of the batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.pairs import as_pairs
from .primitives.pairwise import Pair, both_views, check_options, over_pairs, scale_of
from .primitives.streaming import cross_entropy

DUPLICATES = ("mask", "negative")


class NTXent(Loss):
    """SimCLR's objective: with ``Z = [X; Y]``, mean of ``-log(e^{s z_i·z_i'} / Σ_{k≠i} e^{s z_i·z_k})``.

    Chen et al., arXiv 2002.05709. ``z_i'`` is the other modality's embedding of the same row. Unlike
    InfoNCE, items of the same modality are candidates too, so each modality also spreads out by
    itself: prefer it where modalities collapse or keep apart. Twice InfoNCE's work.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``. Usual values (from memory)
            are 0.1, and 0.5 on small pictures.
        pairs: pairings; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        duplicates: rows whose ``ids`` are equal in either modality: "mask" takes them out of each
            other's candidates, "negative" leaves them in, as published.
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

    Raises:
        ValueError: for an unknown option, or a pair that the batch does not hold.
    """

    def __init__(
        self,
        temperature: float | None = None,
        pairs: Iterable[Iterable[str]] | None = None,
        reduction: str = "mean",
        duplicates: str = "mask",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_options(temperature, reduction, duplicates, DUPLICATES)
        self.temperature = temperature
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.duplicates = duplicates
        self.tile = tile

    def forward(self, z: Embeddings) -> Tensor:
        scale = scale_of(z, self.temperature)

        def compare(pair: Pair) -> Tensor:
            views, keys = both_views(pair)  # (2R, D)
            with torch.autocast(views.device.type, enabled=False):
                (each,) = cross_entropy(
                    views, None, scale, partner=len(pair.x), keys=keys, tile=self.tile
                )  # (2R,)
                return each.mean()  # ()

        return over_pairs(z, self.pairs, self.reduction, compare, self.duplicates == "mask")
