"""Exact log-sum-exp over rows and columns of scores, tile by tile."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .tiles import Keys, Layout, tile_size

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
    (to ``a``, ``b`` and ``scale``) are exact. A row without negatives gives ``-inf`` and no
    gradient. With positives ``p``, ``softplus(lse - p)`` is the cross-entropy of each row, accurate
    however small it is. Computed in float32, or float64 if the input is.

    Inputs:
        a: ``(N, D)``.
        b: ``(K, D)``; None: ``a`` again, where no row is its own candidate; half the work, and
            rows alone are returned.
        scale: ``s``, a number or a scalar tensor.
        partner: the positive of row ``i`` is column ``i + partner``: returned apart, not in the
            sums. With ``b`` None, the positive of ``i + partner`` is ``i``. None: no positives.
        keys: see ``Layout``: duplicates are left out of the sums.
        columns: False: rows alone.
        tile: rows of a tile; None chooses.

    Returns:
        rows ``(N,)``, columns ``(K,)`` or None, positives ``(N,)`` or None.

    Raises:
        ValueError: if ``tile`` is not positive.
        RuntimeError: when differentiated twice.
    """
    own = b is None
    b = a if b is None else b
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    layout = Layout(own, partner, keys, columns and not own, tile_size(a.device, kind.itemsize, tile))
    s = torch.as_tensor(scale)
    # In the symmetric case one side carries the whole gradient.
    return _LogSumExp.apply(a, b.detach() if own else b, s, layout, kind)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, layout: Layout, kind: torch.dtype) -> Any:
        keep = any(ctx.needs_input_grad) and len(a) * len(b) * kind.itemsize <= KEEP
        kept: list[Tensor] | None = [] if keep else None
        positive = a.new_empty(len(a), dtype=kind) if layout.partner is not None else None  # (N,)
        with torch.autocast(a.device.type, enabled=False):
            shift = _shift(a, b, scale, kind)
            if shift is not None:
                rows, columns = _sums(a, b, scale, layout, kind, shift, positive, kept)  # (N,), (K,)
                shift = None if shift and _underflows(rows, columns) else shift
            if shift is None:
                kept = None
                rows, columns = _running(a, b, scale, layout, kind, positive)  # (N,), (K,)
        ctx.save_for_backward(a, b, scale, rows, columns)
        ctx.layout, ctx.kind, ctx.shift, ctx.kept = layout, kind, shift, kept
        ctx.set_materialize_grads(False)
        if shift is None:
            return rows.clone(), None if columns is None else columns.clone(), positive
        return rows.log() + shift, None if columns is None else columns.log() + shift, positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return (*_gradients(ctx, *grads), None, None)


def _shift(a: Tensor, b: Tensor, scale: Tensor, kind: torch.dtype) -> float | None:
    """``c`` such that one ``exp(L - c)`` serves rows and columns; None if the scores spread too far."""
    top = _top(kind)
    norms = [torch.linalg.vector_norm(x, dim=1, dtype=kind).amax() if len(x) else x.new_zeros(()) for x in (a, b)]
    bound = float(scale.detach().abs() * norms[0] * norms[1])
    return max(0.0, bound - top) if bound <= 2.5 * top else None


def _top(kind: torch.dtype) -> float:
    """The largest exponent such that sums of exponentials and their inverses stay normal numbers."""
    return 600.0 if kind == torch.float64 else 60.0


def _underflows(rows: Tensor, columns: Tensor | None) -> bool:
    """Whether a sum is so small that what it left out may matter."""
    least = math.exp(-_top(rows.dtype) - 20)
    return any(len(x) > 0 and bool((x < least).any()) for x in (rows, columns) if x is not None)


def _sums(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    layout: Layout,
    kind: torch.dtype,
    shift: float,
    positive: Tensor | None,
    kept: list[Tensor] | None,
) -> tuple[Tensor, Tensor | None]:
    """``Σ exp(L - shift)`` over rows and columns, from one exponential per entry."""
    rows = a.new_zeros(len(a), dtype=kind)  # (N,)
    columns = a.new_zeros(len(b), dtype=kind) if layout.columns else None  # (K,)
    buffer = _buffer(a, b, layout, kind) if kept is None else None
    for r, stripe in layout.walk(len(a), len(b)):
        left = a[r].to(kind) * scale  # (n, D)
        for c in stripe:
            scores = _scores(left, b[c].to(kind), buffer)  # (n, k)
            _read(layout, scores, r, c, positive)
            exps = (scores.sub_(shift) if shift else scores).exp_()  # (n, k)
            layout.silence(exps, r, c, 0.0)
            rows[r] += exps.sum(1)
            if columns is not None:
                columns[c] += exps.sum(0)
            if layout.own and r != c:
                rows[c] += exps.sum(0)
            if kept is not None:
                kept.append(exps)
    return rows, columns


def _running(
    a: Tensor, b: Tensor, scale: Tensor, layout: Layout, kind: torch.dtype, positive: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """``log Σ exp L`` over rows and columns, each with its own running log-sum: any range of scores."""
    rows = a.new_full((len(a),), -math.inf, dtype=kind)  # (N,)
    columns = a.new_full((len(b),), -math.inf, dtype=kind) if layout.columns else None  # (K,)
    buffer = _buffer(a, b, layout, kind)
    for r, stripe in layout.walk(len(a), len(b)):
        left = a[r].to(kind) * scale  # (n, D)
        for c in stripe:
            scores = _scores(left, b[c].to(kind), buffer)  # (n, k)
            _read(layout, scores, r, c, positive)
            layout.silence(scores, r, c, -math.inf)
            rows[r] = torch.logaddexp(rows[r], scores.logsumexp(1))
            if columns is not None:
                columns[c] = torch.logaddexp(columns[c], scores.logsumexp(0))
            if layout.own and r != c:
                rows[c] = torch.logaddexp(rows[c], scores.logsumexp(0))
    return rows, columns


def _gradients(
    ctx: Any, g_rows: Tensor | None, g_columns: Tensor | None, g_positive: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    a, b, scale, rows, columns = ctx.saved_tensors
    layout, kind, kept = ctx.layout, ctx.kind, iter(ctx.kept) if ctx.kept is not None else None
    by_row = _weights(g_rows, rows, ctx.shift)  # (N,)
    by_column = by_row if layout.own else _weights(g_columns, columns, ctx.shift)  # (K,)
    norms = (rows, rows if layout.own else columns)
    da = torch.zeros_like(a, dtype=kind)  # (N, D)
    db = da if layout.own else torch.zeros_like(b, dtype=kind)  # (K, D)
    ds = torch.zeros((), dtype=kind, device=a.device)
    buffers = [_buffer(a, b, layout, kind) for _ in range(1 if kept else 2)]
    for r, stripe in layout.walk(len(a), len(b)):
        left = a[r].to(kind) * scale  # (n, D)
        for c in stripe:
            right = b[c].to(kind)  # (k, D)
            tile = buffers[-1][: len(left) * len(right)].view(len(left), len(right))  # (n, k)
            if ctx.shift is None:
                scores = _scores(left, right, buffers[0])  # (n, k)
                _two_exponentials(tile, scores, r, c, norms, (by_row, by_column))
            else:
                exps = next(kept) if kept else _scores(left, right, buffers[0]).sub_(ctx.shift).exp_()
                _one_exponential(tile, exps, r, c, (by_row, by_column))
            layout.silence(tile, r, c, 0.0)
            if g_positive is not None:
                for view, at in layout.positives(tile, r, c):
                    view.copy_(g_positive[at])
