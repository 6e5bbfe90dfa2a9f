"""Scores of tuples, one row per modality: exact log-sum-exp over all of them, streamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalign.errors import UserError

from .once import first_order
from .tuple_tiles import Room, elementwise, outer_rows

TILE = 1 << 21
"""Scores held at once: 2 million, 8 MB in float32; a pass holds three such buffers."""

SAFE = 60.0
"""Scores up to this size can be exponentiated and summed in float32 as they are."""


def mip(vectors: Sequence[Tensor]) -> Tensor:
    """Multilinear inner product of aligned rows: ``Σ_k Π_m r^m_k``; for two, the dot product.

    Inputs:
        vectors: ``M`` of ``(N, D)``.

    Returns ``(N,)``.
    """
    return elementwise(vectors).sum(-1)


def tuple_lse(vectors: Sequence[Tensor], scale: Tensor | float, tile: int | None = None) -> list[Tensor]:
    """For every row of every modality, ``log Σ exp(scale · MIP)`` over all tuples that contain it.

    One pass over the ``Π N_m`` scores serves all modalities as anchors, a second one all gradients;
    only a tile of scores exists at a time. Modalities may differ in their number of rows. Cannot be
    differentiated twice.

    Inputs:
        vectors: ``M >= 2`` of ``(N_m, D)``, float32 or wider.
        scale: what scores are multiplied by.
        tile: scores held at once; default ``TILE``, at least ``N`` of the last modality.

    Returns ``M`` of ``(N_m,)``.
    """
    # The innermost modality's gradient costs a matrix product of its own: one that needs none goes there.
    order = sorted(range(len(vectors)), key=lambda m: not vectors[m].requires_grad)
    chosen = [vectors[m] for m in order]
    if len(chosen) == 2:
        chosen.insert(0, torch.ones_like(chosen[0][:1]))
    factor = torch.as_tensor(scale, dtype=chosen[0].dtype, device=chosen[0].device)
    found = _TupleLse.apply(factor, tile or TILE, *chosen)[-len(vectors) :]
    return [found[order.index(m)] for m in range(len(vectors))]


class _TupleLse(Function):
    """``M >= 3`` modalities; indices run as ``fixed`` (one each), a block, a block, all of the last."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, tile: int, *vectors: Tensor) -> tuple[Tensor, ...]:
        safe = largest_score(vectors, scale) <= SAFE
        lse = [v.new_full((len(v),), -math.inf) for v in vectors]  # M x (N_m,)
        last = (scale * vectors[-1]).T  # (D, L)
        room = Room(vectors, tile)
        for fixed, r, j in room.tiles:
            rows, _ = outer_rows(vectors, fixed, r)  # (R, D)
            scores = torch.mm(room.products(rows, vectors[-2][j]), last, out=room.scores)  # (R·J, L)
            by_row, by_last = _reduce(scores, safe)  # (R·J,), (L,)
            by_row = by_row.view(len(rows), -1)  # (R, J)
            outer = by_row.logsumexp(1)  # (R,)
            lse[-1] = torch.logaddexp(lse[-1], by_last)
            lse[-2][j] = torch.logaddexp(lse[-2][j], by_row.logsumexp(0))
            lse[-3][r] = torch.logaddexp(lse[-3][r], outer)
            for m, i in enumerate(fixed):
                lse[m][i] = torch.logaddexp(lse[m][i], outer.logsumexp(0))
        ctx.save_for_backward(scale, *vectors, *lse)
        ctx.tile, ctx.safe = tile, safe
        return tuple(lse)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale, *saved = ctx.saved_tensors
        vectors, lse = saved[: len(grads)], saved[len(grads) :]
        needed = [bool(n) for n in ctx.needs_input_grad[2:]]
        inner = any(needed[:-1])
        needed[-1] |= not inner
        total = [torch.zeros_like(v) for v in vectors]  # M x (N_m, D): gradients over scale
        last = (scale * vectors[-1]).T  # (D, L)
        room = Room(vectors, ctx.tile)
        for fixed, r, j in room.tiles:
            rows, factors = outer_rows(vectors, fixed, r)  # (R, D)
            flat = room.products(rows, vectors[-2][j])  # (R·J, D)
            scores = torch.mm(flat, last, out=room.scores)  # (R·J, L)
            weights = _weights(scores, ctx.safe, fixed, r, j, grads, lse, room)  # (R·J, L)
            if needed[-1]:
                total[-1].addmm_(weights.T, flat)
            if not inner:
                continue
            back = torch.mm(weights, vectors[-1], out=flat).view(len(rows), -1, flat.shape[1])  # (R, J, D)
            outer = torch.mul(back, vectors[-2][j], out=room.spare(back.shape)).sum(1)  # (R, D)
            total[-2][j] += back.mul_(rows.unsqueeze(1)).sum(0)  # (J, D)
            total[-3][r] += outer * elementwise(factors[:-1]) if fixed else outer
            for m, i in enumerate(fixed):
                others = [f for k, f in enumerate(factors) if k != m]
                total[m][i] += (outer * elementwise(others)).sum(0)
        known = -1 if needed[-1] else needed.index(True)  # a score is linear in each of its rows
        for_scale = (vectors[known] * total[known]).sum() if ctx.needs_input_grad[0] else None
        wanted = ctx.needs_input_grad[2:]
        return for_scale, None, *(scale * t if n else None for t, n in zip(total, wanted, strict=True))


def _reduce(scores: Tensor, safe: bool) -> tuple[Tensor, Tensor]:
    """log-sum-exp of a tile along its rows ``(R,)`` and columns ``(L,)``; overwrites the tile."""
    if safe:
        e = scores.exp_()  # (R, L)
        return e.sum(1).log(), e.sum(0).log()
    return scores.logsumexp(1), scores.logsumexp(0)


def _weights(
    scores: Tensor,
    safe: bool,
    fixed: tuple[int, ...],
    r: slice,
    j: slice,
    grads: Sequence[Tensor],
    lse: Sequence[Tensor],
    room: Room,
) -> Tensor:
    """``Σ_m g_m exp(score - lse_m)``: the gradient of every score of a tile, written over the tile."""
    where: list[Any] = [*fixed, r, j, slice(None)]
    shapes = [*[(1, 1)] * len(fixed), (-1, 1), (1, -1)]
    g = [x[i] for x, i in zip(grads, where, strict=True)]  # (), ..., (R,), (J,), (L,)
    top = [x[i] for x, i in zip(lse, where, strict=True)]
    pairs = r.stop - r.start, j.stop - j.start
    if safe:
        u = [a * (-b).exp() for a, b in zip(g, top, strict=True)]
        by_row = sum((x.reshape(s) for x, s in zip(u[:-1], shapes, strict=True)), scores.new_zeros(pairs))
        both = torch.add(by_row.reshape(-1, 1), u[-1], out=room.spare(scores.shape))  # (R·J, L)
        return scores.exp_().mul_(both)
    total = torch.zeros_like(scores)  # (R·J, L)
    for a, b, shape in zip(g[:-1], top[:-1], shapes, strict=True):
        a, b = (x.reshape(shape).expand(pairs).reshape(-1, 1) for x in (a, b))  # (R·J, 1)
        total.addcmul_(torch.sub(scores, b, out=room.spare(scores.shape)).exp_(), a)
    return total.addcmul_(scores.sub_(top[-1]).exp_(), g[-1])


def largest_score(vectors: Sequence[Tensor], scale: Tensor | float) -> float:
    """An upper bound of ``|scale · MIP|``: two modalities by their norms, the others by their maxima."""
    highest = torch.stack([v.detach().abs().max() for v in vectors])  # (M,)
    longest = torch.stack([v.detach().norm(dim=1).max() for v in vectors])  # (M,)
    spread = (longest / highest.clamp(min=1e-30)).sort().values[:2]  # (2,)
    return float(highest.prod() * spread.prod()) * abs(float(torch.as_tensor(scale).detach()))


def check_cost(sizes: Sequence[int], like: Tensor, most: float | None) -> None:
    """Refuse absurd work: more than ``most`` scores; None: 1e10 on a CPU, 1e12 elsewhere.

    Raises:
        UserError: with the cost and the way out.
    """
    scores = math.prod(map(float, sizes))
    cpu = like.device.type == "cpu"
    limit = most if most is not None else 1e10 if cpu else 1e12
    if scores > limit:
        work = 8 * scores * like.shape[1]
        minutes = work / (5e10 if cpu else 2e13) / 60
        raise UserError(
            f"symile with `negatives: all` on N = {max(sizes):,} rows of M = {len(sizes)} modalities makes "
            f"{scores:.1e} scores: {work:.1e} operations, some {minutes:,.0f} minutes a step. Write "
            "`negatives: n` (or a number of shuffles), take a smaller batch_size, or raise `most` "
            f"(now {limit:.0e})"
        )
