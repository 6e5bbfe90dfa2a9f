"""Two ways to sum exponentials of scores over rows and columns in one pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .scores import Scores


def largest_exponent(kind: torch.dtype) -> float:
    """Up to it, sums of exponentials and their inverses are normal numbers."""
    return 600.0 if kind == torch.float64 else 60.0


def choose_shift(scores: Scores) -> float | None:
    """``c`` for which one ``exp(L - c)`` serves rows and columns; None if the scores spread too far."""
    top, bound = largest_exponent(scores.kind), scores.bound()
    return max(0.0, bound - top) if bound <= 2.5 * top else None


def underflows(*sums: Tensor | None) -> bool:
    """Whether a sum is so small that terms lost beside it may have mattered."""
    found = [x for x in sums if x is not None and len(x)]
    return any(bool((x < math.exp(-largest_exponent(x.dtype) - 20)).any()) for x in found)


def shared_sums(
    scores: Scores, shift: float, positive: Tensor | None, kept: list[Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """``Σ exp(L - shift)`` over rows and columns, from one exponential per entry.

    Writes the positives to ``positive`` and, if it is a list, the tiles of exponentials to ``kept``.
    """
    layout = scores.layout
    rows = torch.zeros_like(scores.a[:, 0], dtype=scores.kind)  # (N,)
    columns = torch.zeros_like(scores.b[:, 0], dtype=scores.kind) if layout.columns else None  # (K,)
    across = rows if layout.own else columns
    buffer = scores.buffer() if kept is None else None
    for r, a, stripe in scores.stripes():
        left = a * scores.scale  # (n, D)
        for c in stripe:
            tile = scores.tile(left, scores.b[c].to(scores.kind), buffer)  # (n, k)
            layout.read(tile, r, c, positive)
            tile = (tile.sub_(shift) if shift else tile).exp_()  # (n, k)
            layout.silence(tile, r, c, 0.0)
            rows[r] += tile.sum(1)
            if across is not None and not (layout.own and r == c):
                across[c] += tile.sum(0)
            if kept is not None:
                kept.append(tile)
    return rows, columns


def running_log_sums(scores: Scores, positive: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """``log Σ exp L`` over rows and columns, each with its own running maximum: any range of scores."""
    layout = scores.layout
    rows = torch.full_like(scores.a[:, 0], -math.inf, dtype=scores.kind)  # (N,)
    columns = torch.full_like(scores.b[:, 0], -math.inf, dtype=scores.kind) if layout.columns else None
    across = rows if layout.own else columns  # (K,)
    buffer = scores.buffer()
    for r, a, stripe in scores.stripes():
        left = a * scores.scale  # (n, D)
        for c in stripe:
            tile = scores.tile(left, scores.b[c].to(scores.kind), buffer)  # (n, k)
            layout.read(tile, r, c, positive)
            layout.silence(tile, r, c, -math.inf)
            rows[r] = torch.logaddexp(rows[r], tile.logsumexp(1))
            if across is not None and not (layout.own and r == c):
                across[c] = torch.logaddexp(across[c], tile.logsumexp(0))
    return rows, columns
