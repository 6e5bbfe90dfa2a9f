"""Means over real tokens only."""

from __future__ import annotations

from torch import Tensor


def zero_padding(tokens: Tensor, mask: Tensor) -> Tensor:
    """``(N, T, W)`` with zeros where ``mask (N, T)`` is False, whatever stood there (even NaN)."""
    return tokens.masked_fill(~mask.unsqueeze(-1), 0)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row's real tokens, ``(N, T, W)`` and ``(N, T)`` -> ``(N, W)``.

    A row without a real token gives zeros.
    """
    total = zero_padding(tokens, mask).sum(1)  # (N, W)
    count = mask.sum(1, keepdim=True).clamp(min=1)  # (N, 1)
    return total / count.to(total.dtype)
