"""Late interaction: every token looks for its best match in the other modality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.pairs import as_pairs, connected_zero, widen
from .primitives.pairwise import Pair, check_options, over_pairs, scale_of, take
from .primitives.scores import tile_size
from .primitives.token_scores import token_cross_entropy

DUPLICATES = ("mask", "negative")


class LateInteraction(Loss):
    """FILIP's objective, ``½ [CE(s·S^A) + CE(s·S^Bᵀ)]`` with ``S^A_ij = mean_k max_r a_ik·b_jr``.

    Yao et al., arXiv 2111.07783. ``S^A`` averages over the tokens of the first modality, ``S^B`` over
    those of the second, so the score has a direction. With one token a side it is InfoNCE. Prefer it
    where parts correspond (regions and words); search by the pooled vectors is not trained by it, so
    put ``infonce`` beside it. Work is ``O(N²·T·U·D)``; memory grows with ``N`` alone.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``. The paper starts at 0.07 (from
            memory) and learns it.
        pairs: pairings; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        duplicates: rows whose ``ids`` are equal in either modality: "mask" takes them out of each
            other's candidates, "negative" leaves them in, as published.
        tile: tokens of either side compared at a time; None chooses. Changes speed, not value.

    ``tokens`` are taken as they are, unit rows from a space; a row without a real token counts as not
    present.

    Raises:
        ValueError: for an unknown option, a pair that the batch does not hold, or tokens it lacks.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"tokens"})

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
        masks = {m: z.masks.get(m, _all_real(t)) for m, t in z.tokens.items()}  # (N, T) each
        present = {m: here & masks[m].any(1) if m in masks else here for m, here in z.present.items()}
        z = replace(z, masks=masks, present=present)
        loss = over_pairs(
            z, self.pairs, self.reduction, lambda p: self.compare(z, p, scale), self.duplicates == "mask"
        )
        unread = [widen(t[:0].sum()) for t in z.tokens.values()]  # () each
        return loss + sum(unread, connected_zero(z))

    def compare(self, z: Embeddings, pair: Pair, scale: Tensor | float) -> Tensor:
        """One pair -> ``()``."""
        x, x_mask = _real_part(z, pair.a, pair.rows)  # (R, T, D), (R, T)
        y, y_mask = _real_part(z, pair.b, pair.rows)  # (R, U, D), (R, U)
        with torch.autocast(x.device.type, enabled=False):
            tile = tile_size(x.device, x.element_size(), self.tile)
            each, back = token_cross_entropy(x, x_mask, y, y_mask, scale, pair.codes, tile)  # (R,) each
            return (each.mean() + back.mean()) / 2  # ()


def _all_real(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def _real_part(z: Embeddings, m: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``(R, T, D)`` and mask ``(R, T)`` of some rows, without positions that none of them uses."""
    if m not in z.tokens:
        raise ValueError(
            f"late_interaction needs the tokens of {m}; the batch has them for "
            f"{', '.join(z.tokens) or 'no modality'}"
        )
    tokens, mask = take(z.tokens[m], rows), z.masks[m].index_select(0, rows)  # (R, T, D), (R, T)
    used = mask.any(0).nonzero().squeeze(1)  # (T,)
    if len(used) < mask.shape[1]:
        tokens, mask = tokens.index_select(1, used), mask.index_select(1, used)
    return tokens, mask
