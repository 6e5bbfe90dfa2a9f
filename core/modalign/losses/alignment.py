"""Alignment: partners should lie close together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.pairs import as_pairs, common_rows, connected_zero, pairs_of, widen


class Alignment(Loss):
    """Mean squared distance of partners, ``mean_j ‖x_j - y_j‖²``, the mean over pairs of modalities.

    Wang and Isola, arXiv 2005.10242; against the contrastive gap beside ``infonce`` and
    ``uniformity``. Alone it is least where everything collapses to one point.

    Inputs:
        pairs: pairings such as ``[[image, text]]``; None takes the batch's, else all of them.

    Raises:
        ValueError: for a pair that the batch does not hold.
    """

    def __init__(self, pairs: Iterable[Iterable[str]] | None = None) -> None:
        super().__init__()
        self.pairs = as_pairs(pairs)

    def forward(self, z: Embeddings) -> Tensor:
        zero = connected_zero(z)
        losses = [
            (widen(z.vectors[a][rows]) - widen(z.vectors[b][rows])).square().sum(1).mean()
            for a, b, rows in common_rows(z, pairs_of(z, self.pairs))
        ]
        return torch.stack(losses).mean() + zero if losses else zero
