"""Any score of rows against columns: log-sum-exp in both directions, a tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TILE = 1 << 21
"""Scores held at once: 2 million, 8 MB in float32 for each intermediate."""

Score = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""``(n, ...)`` tensors of some rows, ``(K, ...)`` tensors of all columns -> ``(n, K)``."""


class TwoWay(NamedTuple):
    """log-sum-exp and mean of every row ``(N,)`` and every column ``(K,)`` of scores."""

    row_lse: Tensor
    column_lse: Tensor
    row_mean: Tensor
    column_mean: Tensor


def two_way(
    score: Score, rows: Sequence[Tensor], columns: Sequence[Tensor], tile: int | None = None
) -> TwoWay:
    """Reduce ``score`` over all columns of each row and all rows of each column.

    A tile is computed again in the backward pass instead of being kept, so memory is that of one
    tile and its intermediates, whatever ``N``.

    Inputs:
        score: of some rows against all columns; ``-inf`` leaves an entry out of the log-sum-exp.
        rows, columns: tensors of ``N`` and ``K`` rows.
        tile: scores held at once; default ``TILE``, at least ``K``.
    """
    n, k = len(rows[0]), len(columns[0])
    step = max(1, (tile or TILE) // max(1, k))
    parts = []
    for start in range(0, n, step):
        some = [r[start : start + step] for r in rows]  # each (n, ...)
        reduce = partial(_reduce, score, len(some))
        if step < n and torch.is_grad_enabled():
            out = checkpoint(reduce, *some, *columns, use_reentrant=False, preserve_rng_state=False)
        else:
            out = reduce(*some, *columns)
        parts.append(out)
    row_lse, column_lse, row_sum, column_sum = zip(*parts, strict=True)
    return TwoWay(
        torch.cat(row_lse),
        torch.stack(column_lse).logsumexp(0),
        torch.cat(row_sum) / k,
        torch.stack(column_sum).sum(0) / n,
    )


def _reduce(score: Score, split: int, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scores = score(tensors[:split], tensors[split:])  # (n, K)
    return scores.logsumexp(1), scores.logsumexp(0), scores.sum(1), scores.sum(0)
