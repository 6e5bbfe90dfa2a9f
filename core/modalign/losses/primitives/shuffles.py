"""Seeded shuffles of tuples, none of them a true one, as candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from .streaming import log_sum_exp


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
    vectors: Sequence[Tensor], scale: Tensor | float, rounds: int, generator: Generator
) -> list[Tensor]:
    """For each modality as anchor, ``log Σ exp(scale · MIP)`` of its rows over shuffled others.

    Row ``i`` sees every column of every round but the ``i``-th: ``rounds · (N - 1)`` of them.

    Inputs:
        vectors: ``M >= 3`` of ``(N, D)``, ``N >= 2``.
        rounds: how many shuffles each anchor draws.

    Returns ``M`` of ``(N,)``.
    """
    found = []
    for m, anchor in enumerate(vectors):
        others = [v for k, v in enumerate(vectors) if k != m]
        parts = []
        for _ in range(rounds):
            drawn = shuffles(len(anchor), len(others), generator).to(anchor.device)  # (M-1, N)
            columns = others[0][drawn[0]]  # (N, D)
            for other, index in zip(others[1:], drawn[1:], strict=True):
                columns = columns * other[index]
            # The i-th column stands where the true tuple's would: left out of the sum.
            parts.append(log_sum_exp(anchor, columns, scale, partner=0, columns=False)[0])  # (N,)
        found.append(torch.stack(parts).logsumexp(0))
    return found
