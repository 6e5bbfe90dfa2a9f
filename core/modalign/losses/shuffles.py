"""Seeded shuffles of tuples, none of them a true one, as candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from .two_way import two_way


def derangement(n: int, generator: Generator) -> Tensor:
    """A uniformly drawn permutation of ``n >= 2`` without a fixed point, ``(n,)`` long."""
    if n < 2:
        raise ValueError(f"no permutation of {n} moves every element")
    here = torch.arange(n)
    while True:  # a random permutation is a derangement with probability 1/e
        drawn = torch.randperm(n, generator=generator)
        if not bool((drawn == here).any()):
            return drawn


def shuffles(n: int, modalities: int, generator: Generator) -> Tensor:
    """One permutation of ``n >= 2`` rows for each of ``modalities >= 2``, ``(modalities, n)`` long.

    In no column are all entries equal, so no column is the true tuple of any row: the second
    permutation is the first followed by a derangement, the others are free. Each alone is uniform.
    """
    first = torch.randperm(n, generator=generator)  # (n,)
    rest = [torch.randperm(n, generator=generator) for _ in range(modalities - 2)]
    return torch.stack([first, derangement(n, generator)[first], *rest])


def shuffled_lse(
    vectors: Sequence[Tensor], rows: Tensor, scale: Tensor | float, rounds: int, generator: Generator
) -> list[Tensor]:
    """For each modality as anchor, ``log Σ exp(scale · MIP)`` of some rows over shuffled others.

    Row ``i`` sees every column of every round but the ``i``-th: ``rounds · (N - 1)`` of them.

    Inputs:
        vectors: ``M >= 3`` of ``(N, D)``, ``N >= 2``.
        rows: ``(R,)`` the anchors' rows.
        rounds: how many shuffles each anchor draws.

    Returns ``M`` of ``(R,)``.
    """
    n = len(vectors[0])
    number = torch.arange(n, device=rows.device).repeat(rounds)  # (K,)
    found = []
    for m, anchor in enumerate(vectors):
        others = [v for k, v in enumerate(vectors) if k != m]
        drawn = [shuffles(n, len(others), generator) for _ in range(rounds)]
        picked = torch.cat(drawn, 1).to(rows.device)  # (M-1, K)
        columns = others[0][picked[0]]  # (K, D)
        for other, index in zip(others[1:], picked[1:], strict=True):
            columns = columns * other[index]
        found.append(two_way(_but_own, [scale * anchor[rows], rows], [columns, number]).row_lse)
    return found


def _but_own(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """Scores ``(n, K)``; a row does not see the columns that carry its number."""
    return (rows[0] @ columns[0].T).masked_fill(rows[1].unsqueeze(1) == columns[1], -torch.inf)
