"""Means under a kernel of frozen features, without the kernel's matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .once import first_order
from .scores import tile_size


def kernel_mean(features: Tensor, values: Tensor, width: float, tile: int | None = None) -> Tensor:
    """``Σ_j W_ij v_j / Σ_j W_ij`` with ``W_ij = exp((f_i·f_j - 1) / width)``, differentiable in ``values``.

    Inputs:
        features: ``(N, W)`` unit rows, constants.
        values: ``(N, D)``.
        width: above 0; the smaller, the fewer neighbours count.
        tile: rows of a tile; None chooses.

    Returns:
        ``(N, D)``.
    """
    return _KernelMean.apply(features, values, width, tile_size(values.device, values.element_size(), tile))


class _KernelMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, values: Tensor, width: float, tile: int) -> Tensor:
        mean = torch.zeros_like(values)  # (N, D)
        mass = values.new_zeros(len(values), 1)  # (N, 1)
        with torch.autocast(values.device.type, enabled=False):
            for r, c, weights in _tiles(features, width, tile):
                mean[r].addmm_(weights, values[c])
                mass[r] += weights.sum(1, keepdim=True)
        ctx.save_for_backward(features, mass)
        ctx.width, ctx.tile = width, tile
        return mean.div_(mass)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> Any:
        features, mass = ctx.saved_tensors
        shared = gradient / mass  # (N, D)
        found = torch.zeros_like(gradient)  # (N, D)
        for r, c, weights in _tiles(features, ctx.width, ctx.tile):
            found[c].addmm_(weights.T, shared[r])
        return None, found, None, None


def _tiles(features: Tensor, width: float, tile: int) -> Any:
    """Rows, columns and their ``(n, k)`` weights."""
    n = len(features)
    for r in (slice(i, i + tile) for i in range(0, n, tile)):
        for c in (slice(j, j + tile) for j in range(0, n, tile)):
            yield r, c, (features[r] @ features[c].T).sub_(1).div_(width).exp_()
