"""Linear maps into a space, and what several sums of moments say together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Pair = tuple[str, str]
NOTHING = 1e-6
"""A variance below this share of the largest is rounding: products are float32 before they are summed."""


@dataclass(frozen=True)
class Map:
    """``x (n, W) -> x @ weight.T + bias``: ``weight (D, W)``, ``bias (D,)``, float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T.to(x) + self.bias.to(x)  # (n, D)


def identity(width: int) -> Map:
    """The map that leaves vectors of that width as they are."""
    return Map(torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))


def principal(mean: Tensor, covariance: Tensor, dim: int) -> Map:
    """Centres vectors; those wider than ``dim`` are turned to their ``dim`` principal directions."""
    width = len(covariance)
    if width <= dim:
        weight = torch.eye(dim, width, dtype=torch.float64)
    else:
        weight = torch.linalg.eigh(covariance)[1][:, -dim:].flip(1).T  # (dim, width)
    return Map(weight, -weight @ mean)


def pooled(parts: Iterable[tuple[Tensor, Tensor, float]]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all rows, from those of some and their weights."""
    parts = list(parts)
    weight = sum(w for *_, w in parts) or 1.0
    mean = torch.stack([w * mean for mean, _, w in parts]).sum(0) / weight
    spread = [w * (cov + (part - mean)[:, None] * (part - mean)) for part, cov, w in parts]
    return mean, torch.stack(spread).sum(0) / weight
