"""The candidates nearest to a query, summed without holding all scores."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .scores import Keys, as_scalar, tile_size


def hardest_log_sum_exp(a: Tensor, b: Tensor, scale: Tensor | float, count: int, keys: Keys = ()) -> Tensor:
    """``log Σ exp L`` over the ``count`` largest entries of each row of ``L = s·ABᵀ``, duplicates left out.

    A few rows at a time, computed again in the backward pass. A row of which nothing is left gives
    about the lowest number of its type, and no gradient.

    Inputs:
        a, b: ``(N, D)`` and ``(K, D)``.
        scale: ``s`` > 0, a number or a scalar tensor.
        count: at most ``K``.
        keys: per key ``(N,)`` and ``(K,)`` integers; equal ones that are not negative are duplicates.

    Returns ``(N,)``.
    """
    step = max(1, tile_size(a.device, a.element_size()) ** 2 // max(1, len(b)))
    found = []
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        same = [(left[rows].unsqueeze(1) == right) & (right >= 0) for left, right in keys]  # (n, K) each
        run = partial(_some_rows, count, torch.stack(same).any(0) if same else None)
        tensors = (a[rows], b, as_scalar(scale))
        again = torch.is_grad_enabled() and len(a) > step
        found.append(checkpoint(run, *tensors, use_reentrant=False) if again else run(*tensors))
    return torch.cat(found)


def _some_rows(count: int, left_out: Tensor | None, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    scores = scale * (a @ b.T)  # (n, K)
    if left_out is not None:
        scores = scores.masked_fill(left_out, -torch.inf)
    top = scores.topk(count, dim=1, sorted=False).values  # (n, count)
    return top.clamp(min=torch.finfo(top.dtype).min).logsumexp(1)
