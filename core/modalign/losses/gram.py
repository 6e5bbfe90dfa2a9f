"""GRAM: a row's vectors should span a small volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.anchored import Cost, check_options, contrast
from .primitives.patterns import names_of


class GRAM(Loss):
    """Cross entropy of ``-s·V``, the volume of the parallelotope that a row's vectors span.

    ``V = √det G`` with ``G`` the inner products of anchor ``i`` and the others of row ``j``
    (Cicchetti et al., arXiv 2412.11959); both directions, streamed. For two modalities
    ``V = √(1 - cos²)``. Without the paper's matching head.

    Blind spots: ``V`` does not see signs (opposite vectors fit as well as equal ones), and any two
    equal modalities make it 0 and hide what the others do. Prefer it where three or more
    modalities say the same thing, beside ``infonce``, which fixes the signs.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``, which the space may learn.
        label_smoothing: share of the target spread over all candidates.
        modalities: which to compare, the anchor first; None = all, in the batch's order.
        eps: volumes below ``√eps`` count as that, where the root would be infinitely steep.

    Raises:
        ValueError: for a value out of range, a modality the batch lacks, or fewer than two.
    """

    def __init__(
        self,
        temperature: float | None = None,
        label_smoothing: float = 0.1,
        modalities: Iterable[str] | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities) if modalities is not None else None
        check_options(temperature, label_smoothing, self.modalities)
        if not eps > 0:
            raise ValueError(f"eps {eps}: must be above 0")
        self.temperature, self.label_smoothing, self.eps = temperature, label_smoothing, eps

    def forward(self, z: Embeddings) -> Tensor:
        names = names_of(z, self.modalities)
        volume = Cost(adjugate, partial(_volume, self.eps))
        return contrast(z, names, self.temperature, self.label_smoothing, lambda _: volume)


def adjugate(others: Sequence[Tensor]) -> list[Tensor]:
    """Determinant and adjugate, row by row, of the inner products of ``M-1`` of ``(K, D)``: each ``(K,)``."""
    g = torch.stack([torch.stack([(a * b).sum(1) for b in others]) for a in others])  # (M-1, M-1, K)
    n = len(others)
    places = [(r, c) for r in range(n) for c in range(n)]
    return [determinant(g), *((-1) ** (r + c) * determinant(_minor(g, c, r)) for r, c in places)]


def determinant(g: Tensor) -> Tensor:
    """Of ``(n, n, K)`` small matrices, ``(K,)``; a polynomial, so smooth where they are singular too."""
    if len(g) == 0:
        return g.new_ones(g.shape[2])
    terms = [(-1) ** c * g[0, c] * determinant(_minor(g, 0, c)) for c in range(len(g))]
    return torch.stack(terms).sum(0)


def _minor(g: Tensor, row: int, column: int) -> Tensor:
    kept = [i for i in range(len(g)) if i != row], [i for i in range(len(g)) if i != column]
    return g[kept[0]][:, kept[1]]


def _volume(eps: float, products: Sequence[Tensor], square: Tensor, alone: Sequence[Tensor]) -> Tensor:
    """``√(‖a‖² det G - vᵀ adj(G) v)`` with ``v`` the anchor's inner products, ``G`` the others'."""
    det, *adj = alone
    total = square * det  # (n, K)
    for r, a in enumerate(products):
        for c, b in enumerate(products):
            total = total - a * b * adj[r * len(products) + c]
    return total.clamp(min=eps).sqrt()
