"""Uniformity: embeddings should spread over the sphere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.pairs import as_pairs, common_rows, connected_zero, pairs_of, widen
from .primitives.two_way import two_way


class Uniformity(Loss):
    """``log mean e^{-t‖x_j - y_k‖²}``: how crowded the sphere is, 0 where all is one point.

    Within a modality over all ``j, k`` (with ``j = k``, so at least ``-log N``), the mean over
    modalities; across a pair over ``j ≠ k``, the mean over pairs; the two are added. Wang and
    Isola, arXiv 2005.10242; across pairs it closes the contrastive gap beside ``infonce`` and
    ``alignment``. Streamed.

    Inputs:
        t: the sharpness.
        within, across: which of the two terms to take.
        pairs: pairings such as ``[[image, text]]``; None takes the batch's, else all of them.

    Raises:
        ValueError: if ``t`` is not above 0, neither term is taken, or the batch lacks a pair.
    """

    def __init__(
        self,
        t: float = 2.0,
        within: bool = True,
        across: bool = True,
        pairs: Iterable[Iterable[str]] | None = None,
    ) -> None:
        super().__init__()
        if not t > 0:
            raise ValueError(f"t {t}: must be above 0")
        if not (within or across):
            raise ValueError("uniformity: take `within`, `across`, or both")
        self.t, self.within, self.across = t, within, across
        self.pairs = as_pairs(pairs)

    def forward(self, z: Embeddings) -> Tensor:
        total = connected_zero(z)
        pairs = pairs_of(z, self.pairs)
        with torch.autocast(total.device.type, enabled=False):
            if self.within:
                names = [m for m in z.modalities if any(m in p for p in pairs) and z.present[m].any()]
                own = [self.crowding(x, x) for x in (z.vectors[m][z.present[m]] for m in names)]
                total = total + (torch.stack(own).mean() if own else 0)
            if self.across:
                between = [
                    self.crowding(z.vectors[a][rows], z.vectors[b][rows], apart=True)
                    for a, b, rows in common_rows(z, pairs)
                    if len(rows) > 1
                ]
                total = total + (torch.stack(between).mean() if between else 0)
        return total

    def crowding(self, x: Tensor, y: Tensor, apart: bool = False) -> Tensor:
        """``log mean_{j,k} e^{-t‖x_j - y_k‖²}`` of ``(N, D)`` each, over ``j ≠ k`` if ``apart``."""
        x, y = widen(x), widen(y)
        n = len(x)
        rows, columns = ([v, v.square().sum(1), torch.arange(n, device=v.device)] for v in (x, y))
        lse = two_way(partial(_closeness, self.t, apart), rows, columns).row_lse  # (N,)
        return lse.logsumexp(0) - math.log(n * (n - 1) if apart else n * n)


def _closeness(t: float, apart: bool, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """``-t‖x - y‖²``, ``(n, K)``; ``-inf`` for a row's own column if ``apart``."""
    square = rows[1].unsqueeze(1) + columns[1] - 2 * rows[0] @ columns[0].T  # (n, K)
    if apart:
        square = square.masked_fill(rows[2].unsqueeze(1) == columns[2], math.inf)
    return -t * square
