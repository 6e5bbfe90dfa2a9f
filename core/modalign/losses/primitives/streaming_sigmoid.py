"""The sum of softplus over all negatives of a score matrix, tile by tile."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .once import first_order
from .scores import Keys, Layout, Scores, as_scalar, shaped, tile_size


def sum_softplus(
    a: Tensor,
    b: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    *,
    keys: Keys = (),
    flip: bool = False,
    tile: int | None = None,
) -> Tensor:
    """``Σ log(1 + exp(s·a_i·b_j + bias))`` over all ``i ≠ j``: what a sigmoid loss asks of negatives.

    A term's gradient does not depend on the others, so it is taken in the same pass: three matrix
    products in all, and memory of ``O((N + K)·D)``.

    Inputs:
        a, b: ``(N, D)`` and ``(K, D)``.
        scale, bias: numbers or scalar tensors.
        keys: duplicates, see ``Layout``.
        flip: False leaves duplicates out; True makes them positives, ``log(1 + exp(-…))``.
        tile: rows of a tile; None chooses.

    Raises:
        ValueError: if ``tile`` is not positive.
        RuntimeError: when differentiated twice.
    """
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    layout = Layout(False, 0, keys, True, tile_size(a.device, kind.itemsize, tile))
    return _SumSoftplus.apply(a, b, as_scalar(scale), as_scalar(bias), layout, kind, flip)


class _SumSoftplus(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        bias: Tensor,
        layout: Layout,
        kind: torch.dtype,
        flip: bool,
    ) -> Tensor:
        scores = Scores(a, b, scale, layout, kind)
        needed = ctx.needs_input_grad
        da = torch.zeros_like(a, dtype=kind) if needed[0] or needed[2] else None  # (N, D)
        db = torch.zeros_like(b, dtype=kind) if needed[1] else None  # (K, D)
        total, ds, dbias, zero = (torch.zeros((), dtype=kind, device=a.device) for _ in range(4))  # () each
        buffer, terms = scores.buffer(), scores.buffer()
        for r, some, stripe in scores.stripes():
            left = some * scale  # (n, D)
            for c in stripe:
                right = b[c].to(kind)  # (k, D)
                x = scores.tile(left, right, buffer).add_(bias)  # (n, k)
                flipped = _leave_negatives(layout, x, r, c, flip)
                total += torch.logaddexp(x, zero, out=shaped(terms, left, right)).sum()
                if not any(needed):
                    continue
                g = x.sigmoid_()  # (n, k)
                if flipped is not None:
                    g[flipped] *= -1
                dbias += g.sum()
                if da is not None:
                    da[r].addmm_(g, right)
                if db is not None:
                    db[c].addmm_(g.T, some)
            if da is not None:
                ds += (da[r] * some).sum()
                da[r] *= scale
        if db is not None:
            db *= scale
        ctx.save_for_backward(a, b, scale, bias)
        ctx.gradients = tuple(
            g if need else None for g, need in zip((da, db, ds, dbias), needed, strict=False)
        )
        return total

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> Any:
        pairs = zip(ctx.gradients, ctx.saved_tensors, strict=True)
        found = (None if g is None else (g * gradient).to(x).reshape(x.shape) for g, x in pairs)
        return *found, None, None, None


def _leave_negatives(
    layout: Layout, x: Tensor, r: slice, c: slice, flip: bool
) -> tuple[Tensor, Tensor] | None:
    """Take what is no negative out of the tile; duplicates change sign if ``flip``, and are returned."""
    flipped = layout.duplicates(r, c) if flip else None
    if flipped is None:
        layout.silence(x, r, c, -math.inf)
        return None
    for view, _ in layout.positives(x, r, c):
        view.fill_(-math.inf)
    x[flipped] *= -1
    return flipped
