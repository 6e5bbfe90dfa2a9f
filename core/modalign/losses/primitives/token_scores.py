"""Scores of token sequences, and their cross-entropy, a tile at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def late_interaction(x: Tensor, x_mask: Tensor, y: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over one side's tokens of the best match among the other's, for each side.

    Inputs:
        x, x_mask: ``(N, T, D)`` and ``(N, T)``; every row has a real token.
        y, y_mask: ``(K, U, D)`` and ``(K, U)``.

    Returns ``(N, K)`` twice: the mean over the tokens of ``x``, and of ``y``.
    """
    products = (x.flatten(0, 1) @ y.flatten(0, 1).T).view(*x_mask.shape, *y_mask.shape)  # (N, T, K, U)
    products.add_(_silence(x_mask, x)[:, :, None, None]).add_(_silence(y_mask, y))
    of_x = products.amax(3).masked_fill(~x_mask.unsqueeze(2), 0).sum(1)  # (N, K)
    of_y = products.amax(1).masked_fill(~y_mask, 0).sum(2)  # (N, K)
    return of_x / x_mask.sum(1, keepdim=True), of_y / y_mask.sum(1)


def token_cross_entropy(
    x: Tensor,
    x_mask: Tensor,
    y: Tensor,
    y_mask: Tensor,
    scale: Tensor | float,
    codes: Sequence[Tensor] = (),
    tile: int = 1024,
) -> tuple[Tensor, Tensor]:
    """``-log p(partner)``: rows of ``x`` by the first score of ``late_interaction``, of ``y`` by the second.

    Tiles are computed again in the backward pass instead of being kept, so memory grows with ``N``,
    not with ``N²``; what remains of a tile is one number for each of its rows and columns.

    Inputs:
        x, x_mask, y, y_mask: as ``late_interaction``, with ``N`` rows each; row ``i`` belongs to row ``i``.
        scale: ``s``, a number or a scalar tensor.
        codes: ``(N,)`` integers each; rows with one equal, not negative, are no candidates of each other.
        tile: tokens on a side of a tile, at least one row.

    Returns ``(N,)`` twice.
    """
    factor = torch.as_tensor(scale, dtype=x.dtype, device=x.device)  # ()
    # What is not real may be anything, also not a number: no gradient must meet it.
    x, y = (t.masked_fill(~mask.unsqueeze(2), 0) for t, mask in ((x, x_mask), (y, y_mask)))
    n = len(x)
    rows, columns = (list(_steps(n, max(1, tile // mask.shape[1]))) for mask in (x_mask, y_mask))
    run = _run if len(rows) * len(columns) == 1 else _run_again
    few = list(_steps(n, max(1, tile**2 // (x_mask.shape[1] * y_mask.shape[1]))))
    own = [run(_own, x[r], x_mask[r], y[r], y_mask[r]) for r in few]  # each (n,) twice
    of_x, of_y = (factor * torch.cat(part) for part in zip(*own, strict=True))  # (N,) twice
    by_row: list[Tensor] = []
    by_column: list[list[Tensor]] = [[] for _ in columns]
    for r in rows:
        stripe = []
        for j, c in enumerate(columns):
            left_out = _same(codes, r, c)
            tokens = (x[r], x_mask[r], y[c], y_mask[c], of_x[r], of_y[c], factor)
            across, down = run(partial(_reduce, left_out, r.start - c.start), *tokens)  # (n,), (k,)
            stripe.append(across)
            by_column[j].append(down)
        by_row.append(torch.stack(stripe).logsumexp(0))  # (n,)
    return torch.cat(by_row), torch.cat([torch.stack(parts).logsumexp(0) for parts in by_column])


def _reduce(left_out: Tensor | None, offset: int, *tokens: Tensor) -> tuple[Tensor, Tensor]:
    """``log Σ exp(s·(score - partner's))`` over a tile, along its rows ``(n,)`` and columns ``(k,)``."""
    of_x, of_y, scale = tokens[4:]
    forth, back = late_interaction(*tokens[:4])  # (n, k) twice
    found = []
    for logits, dim in ((scale * forth - of_x.unsqueeze(1), 1), (scale * back - of_y, 0)):
        if left_out is not None:
            logits = logits.masked_fill(left_out, -math.inf)
        # Partners are exactly 0; the lowest number keeps a row with nothing else out of NaN.
        partner = torch.ones_like(logits, dtype=torch.bool).triu(offset).tril(offset)  # (n, k)
        logits = logits.masked_fill(partner, 0).clamp(min=torch.finfo(logits.dtype).min)
        found.append(logits.logsumexp(dim))
    return found[0], found[1]


def _silence(mask: Tensor, like: Tensor) -> Tensor:
    """What to add to a score: 0 where the token is real, ``-inf`` where not. Cheaper than a mask for each."""
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill_(~mask, -math.inf)


def _own(x: Tensor, x_mask: Tensor, y: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``(n,)`` of each row with its partner."""
    products = torch.bmm(x, y.transpose(1, 2))  # (n, T, U)
    products = products.masked_fill(~(x_mask.unsqueeze(2) & y_mask.unsqueeze(1)), -math.inf)
    of_x = products.amax(2).masked_fill(~x_mask, 0).sum(1) / x_mask.sum(1)  # (n,)
    return of_x, products.amax(1).masked_fill(~y_mask, 0).sum(1) / y_mask.sum(1)


def _same(codes: Sequence[Tensor], r: slice, c: slice) -> Tensor | None:
    """Where in a tile the rows' and columns' content is equal, ``(n, k)``."""
    found = [(code[r].unsqueeze(1) == code[c]) & (code[c] >= 0) for code in codes]
    return torch.stack(found).any(0) if found else None


def _steps(n: int, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _run(part: Callable[..., Any], *tensors: Tensor) -> Any:
    return part(*tensors)


def _run_again(part: Callable[..., Any], *tensors: Tensor) -> Any:
    """Keep the inputs alone for the backward pass."""
    if not torch.is_grad_enabled():
        return part(*tensors)
    return checkpoint(part, *tensors, use_reentrant=False, preserve_rng_state=False)
