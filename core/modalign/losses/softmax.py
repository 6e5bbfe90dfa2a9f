"""Cross entropy with soft targets and candidates left out."""

from __future__ import annotations

import math

from torch import Tensor


def soft_cross_entropy(
    logits: Tensor, targets: Tensor, left_out: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """``-Σ_j T_ij log softmax(L_i)_j`` per row, over the candidates that are not left out.

    Inputs:
        logits: ``(N, K)``.
        targets: ``(N, K)`` non-negative, rows summing to 1, zero where left out.
        left_out: ``(N, K)`` bool; every row keeps a candidate.
        smoothing: share of the target spread evenly over the row's candidates.
    """
    if left_out is not None:
        logits = logits.masked_fill(left_out, -math.inf)  # (N, K)
    if smoothing:
        kept = targets.new_ones(targets.shape) if left_out is None else (~left_out).to(targets.dtype)
        targets = (1 - smoothing) * targets + smoothing * kept / kept.sum(1, keepdim=True)  # (N, K)
    log_p = logits.log_softmax(1)  # (N, K)
    # 0 · -inf would be NaN: what has no target mass is dropped, not multiplied.
    return -(targets * log_p.masked_fill(targets == 0, 0)).sum(1)  # (N,)
