"""Singular values of embeddings and of what two modalities share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 14
"""Rows that are in float64 at once."""


def centre(vectors: Tensor) -> Tensor:
    """``(K, D)`` -> ``(D,)`` float64."""
    return torch.stack([part.double().sum(0) for part in vectors.split(CHUNK)]).sum(0) / len(vectors)


def singular_values(first: Tensor, second: Tensor | None = None, pairs: Tensor | None = None) -> Tensor:
    """Of the centred ``first (K, D)``; of two sides, of their covariance over ``pairs (L, 2)``. ``(D,)``."""
    if second is None or pairs is None:
        middle = centre(first)  # (D,)
        moment = sum((part.double() - middle).T @ (part.double() - middle) for part in first.split(CHUNK))
        assert isinstance(moment, Tensor)
        values = torch.linalg.eigvalsh(moment).flip(0)  # (D,)
        return values.clamp(min=0).masked_fill(values < 1e-12 * values[0], 0).sqrt().cpu()
    products, left, right = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for some in pairs.split(CHUNK):
        x, y = first[some[:, 0]].double(), second[some[:, 1]].double()  # (l, D), (l, D)
        products, left, right = products + x.T @ y, left + x.sum(0), right + y.sum(0)
    n = len(pairs)
    return torch.linalg.svdvals(products / n - torch.outer(left / n, right / n)).cpu()


def effective_rank(values: Tensor) -> float:
    """``e^H`` of ``(D,)`` singular values over their sum; 0 where all are 0."""
    if not float(values.sum()) > 0:
        return 0.0
    share = values / values.sum()  # (D,)
    return math.exp(float(torch.special.entr(share).sum()))


def figure(spectrum: Tensor, about: str) -> Any:
    """The singular values in falling order, on a logarithmic axis."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5, 3.2), layout="constrained")
    axes = drawn.subplots()
    axes.plot(range(1, len(spectrum) + 1), spectrum.clamp(min=1e-12).tolist(), marker=".", linewidth=1)
    axes.set(xlabel="number", ylabel="singular value", yscale="log")
    axes.set_title(f"covariance of {about}", fontsize=10)
    return drawn
