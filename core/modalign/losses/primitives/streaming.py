"""Exact log-sum-exp over rows and columns of scores, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .once import first_order
from .reductions import choose_shift, running_log_sums, shared_sums, underflows
from .scores import Keys, Layout, Scores, as_scalar, shaped, tile_size

KEEP = 32 * 2**20
"""Bytes up to which the exponentials are kept for the backward pass instead of computed again."""


def log_sum_exp(
    a: Tensor,
    b: Tensor | None,
    scale: Tensor | float,
    *,
    partner: int | None = 0,
    keys: Keys = (),
    columns: bool = True,
    tile: int | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """``log Σ exp L`` over the negatives of each row and column of ``L = s·ABᵀ``, and the positives.

    The ``(N, K)`` scores are visited in tiles: memory is ``O((N + K)·D)``, value and gradients
    (to ``a``, ``b`` and ``scale``) are exact. With positives ``p``, ``softplus(lse - p)`` is the
    cross-entropy of each row, accurate however small it is. A row without negatives gives
    ``-inf`` and no gradient. Computed in float32, or in float64 if the input is.

    Inputs:
        a: ``(N, D)``.
        b: ``(K, D)``; None: ``a`` again, where no row is its own candidate. That takes half the
            work, and returns rows alone.
        scale: ``s``, a number or a scalar tensor.
        partner: the positive of row ``i`` is column ``i + partner``: returned apart, not in the
            sums. With ``b`` None it must be ``N / 2``, and partners are mutual. None: no positives.
        keys: duplicates to leave out of the sums, see ``Layout``.
        columns: False: rows alone.
        tile: rows of a tile; None chooses.

    Returns:
        rows ``(N,)``, columns ``(K,)`` or None, positives ``(N,)`` or None.

    Raises:
        ValueError: if ``tile`` is not positive, or ``partner`` leaves a row without its positive.
        RuntimeError: when differentiated twice.
    """
    own = b is None
    other = a.detach() if b is None else b  # in the symmetric case `a` carries the whole gradient
    if partner is not None and not (2 * partner == len(a) if own else 0 <= partner <= len(other) - len(a)):
        raise ValueError(f"partner {partner}: {len(a)} rows and {len(other)} columns do not pair up so")
    kind = torch.promote_types(torch.promote_types(a.dtype, other.dtype), torch.float32)
    layout = Layout(own, partner, keys, columns and not own, tile_size(a.device, kind.itemsize, tile, own))
    return _LogSumExp.apply(a, other, as_scalar(scale), layout, kind)


def cross_entropy(a: Tensor, b: Tensor | None, scale: Tensor | float, **options: Any) -> list[Tensor]:
    """``-log p(partner)`` of every row ``(N,)`` and, unless left out, of every column ``(N,)``.

    ``log(1 + Σ exp(L_ij - p_i))`` over the negatives: exact near zero too. Arguments as
    ``log_sum_exp``, with a partner for every row.
    """
    rows, columns, positive = log_sum_exp(a, b, scale, **options)
    assert positive is not None
    return [softplus(lse - positive) for lse in (rows, columns) if lse is not None]


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, layout: Layout, kind: torch.dtype) -> Any:
        scores = Scores(a, b, scale, layout, kind)
        positive = None if layout.partner is None else torch.empty_like(a[:, 0], dtype=kind)  # (N,)
        keep = any(ctx.needs_input_grad) and len(a) * len(b) * kind.itemsize <= KEEP
        kept: list[Tensor] | None = [] if keep else None
        with torch.autocast(a.device.type, enabled=False):
            shift = choose_shift(scores)
            if shift is not None:
                rows, columns = shared_sums(scores, shift, positive, kept)  # (N,), (K,)
                if shift and underflows(rows, columns):
                    shift = None
            if shift is None:
                kept = None
                rows, columns = running_log_sums(scores, positive)  # (N,), (K,)
        if layout.own and positive is not None:
            positive[layout.partner :] = positive[: layout.partner]
        ctx.save_for_backward(a, b, scale, rows, columns)
        ctx.layout, ctx.kind, ctx.shift, ctx.kept = layout, kind, shift, kept
        ctx.set_materialize_grads(False)
        return *(_logs(x, shift) for x in (rows, columns)), positive

    @staticmethod
    @first_order
    def backward(ctx: Any, rows: Tensor | None, columns: Tensor | None, positive: Tensor | None) -> Any:
        a, b, scale, row_sums, column_sums = ctx.saved_tensors
        scores = Scores(a, b, scale, ctx.layout, ctx.kind)
        own = ctx.layout.own
        sides = [_Side(rows, row_sums, ctx.shift), _Side(columns, column_sums, ctx.shift)]
        if own:  # each entry counts for its row and, mirrored, for its column
            sides[1] = sides[0]
            positive = None if positive is None else positive + positive.roll(ctx.layout.partner)
        found = _gradients(scores, sides, positive, ctx.shift, ctx.kept, ctx.needs_input_grad)
        return *found, None, None


def _logs(x: Tensor | None, shift: float | None) -> Tensor | None:
    if x is None:
        return None
    return x.clone() if shift is None else x.log() + shift


class _Side:
    """The gradient that reaches a side's log-sums, and what normalises its exponentials."""

    def __init__(self, gradient: Tensor | None, sums: Tensor | None, shift: float | None) -> None:
        self.used = gradient is not None and sums is not None
        if gradient is None or sums is None:
            return
        self.shift = sums  # (N,)
        # Without negatives it is infinite, but then every entry of the row is silenced.
        self.weight = gradient if shift is None else gradient / sums  # (N,)


def _gradients(
    scores: Scores,
    sides: list[_Side],
    positive: Tensor | None,
    shift: float | None,
    kept: list[Tensor] | None,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients to ``a``, ``b`` and the scale, as far as they are ``needed``."""
    layout, kind = scores.layout, scores.kind
    da = torch.zeros_like(scores.a, dtype=kind) if needed[0] or needed[2] else None  # (N, D)
    db = torch.zeros_like(scores.b, dtype=kind) if needed[1] else None  # (K, D)
    across = da if layout.own else db
    ds = torch.zeros((), dtype=kind, device=scores.a.device)  # ()
    exps, out = scores.buffer(), scores.buffer()
    ready = iter(kept or ())
    for r, a, stripe in scores.stripes():
        left = a * scores.scale  # (n, D)
        for c in stripe:
            b = scores.b[c].to(kind)  # (k, D)
            g = shaped(out, left, b)  # (n, k)
            if shift is None:
                _two_exponentials(g, scores.tile(left, b, exps), r, c, sides)
            else:
                tile = next(ready, None)  # (n, k)
                if tile is None:
                    tile = scores.tile(left, b, exps)
                    tile = (tile.sub_(shift) if shift else tile).exp_()
                _one_exponential(g, tile, r, c, sides)
            layout.silence(g, r, c, 0.0)
            if positive is not None:
                for view, at in layout.positives(g, r, c):
                    view.copy_(positive[at])
            if da is not None:
                da[r].addmm_(g, b)
            if across is not None and not (layout.own and r == c):
                across[c].addmm_(g.T, a)
        if da is not None:
            ds += (da[r] * a).sum() / (2 if layout.own else 1)
            da[r] *= scores.scale
    if db is not None:
        db *= scores.scale
    return (
        da.to(scores.a.dtype) if da is not None and needed[0] else None,
        db.to(scores.b.dtype) if db is not None else None,
        ds.to(scores.scale).reshape(scores.scale.shape) if needed[2] else None,
    )


def _one_exponential(out: Tensor, exps: Tensor, r: slice, c: slice, sides: list[_Side]) -> None:
    """``out = (w_i + w_j)·exp(L - shift)``; a side that is not used is left out."""
    row, column = sides
    if row.used and column.used:
        torch.add(row.weight[r].unsqueeze(1), column.weight[c], out=out).mul_(exps)
    elif row.used:
        torch.mul(exps, row.weight[r].unsqueeze(1), out=out)
    elif column.used:
        torch.mul(exps, column.weight[c], out=out)
    else:
        out.zero_()


def _two_exponentials(out: Tensor, tile: Tensor, r: slice, c: slice, sides: list[_Side]) -> None:
    """``out = w_i·exp(L - lse_i) + w_j·exp(L - lse_j)``; overwrites ``tile``."""
    row, column = sides
    out.zero_()
    if row.used:
        torch.sub(tile, row.shift[r].unsqueeze(1), out=out).exp_().mul_(row.weight[r].unsqueeze(1))
    if column.used:
        out += tile.sub_(column.shift[c]).exp_().mul_(column.weight[c])
