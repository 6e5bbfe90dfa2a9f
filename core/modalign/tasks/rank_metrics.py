"""From the ranks of right answers to retrieval's metrics, their intervals included."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .bootstrap import interval


def of_best(ranks: Tensor, ks: Iterable[int]) -> dict[str, Tensor]:
    """What each query scores by the rank of its best positive ``(Q,)``: ``{metric: (Q,)}``."""
    return {f"R@{k}": (ranks <= k).double() for k in ks} | {"MRR": 1 / ranks, "median_rank": ranks}


def scores_of(ranks: Tensor, pairs: Tensor, ks: Iterable[int]) -> dict[str, Tensor]:
    """What each query with a positive scores: ``{metric: (Q,)}``.

    ``nDCG@k = Σ_{j: r_j ≤ k} 1 / log2(1 + r_j)`` over its value for ranks 1, 2, …; ``mAP@R =
    Σ_{j: r_j ≤ R} (j / r_j) / R`` for the ranks ``r_1 < r_2 < …`` of ``R`` positives.

    Inputs:
        ranks, pairs: as of ``every_rank``, ``(L,)`` and ``(L, 2)``.
    """
    ks = tuple(ks)
    query, count = pairs[:, 0].unique_consecutive(return_inverse=True, return_counts=True)[1:]  # (L,), (Q,)
    first = count.cumsum(0) - count  # (Q,)
    number = torch.arange(1, len(ranks) + 1, device=ranks.device) - first[query]  # (L,) 1, 2, …
    zeros = torch.zeros(len(count), dtype=torch.float64, device=ranks.device)  # (Q,)

    def total(values: Tensor) -> Tensor:
        return zeros.index_add(0, query, values.double())

    found = of_best(ranks[first], ks)
    for k in ks:
        if k > 1:
            gain = total((ranks <= k) / (1 + ranks).log2())  # (Q,)
            found[f"nDCG@{k}"] = gain / total((number <= k) / (1 + number).log2())
    found["mAP@R"] = total((ranks <= count[query]) * number / ranks) / count
    return found


def summarise(found: dict[str, Tensor]) -> dict[str, float]:
    """The mean over queries of each metric; of ``median_rank`` the median."""
    return {name: float(median(v) if name == "median_rank" else v.mean()) for name, v in found.items()}


def median(values: Tensor) -> Tensor:
    """``quantile`` takes no more than 16 million."""
    return values.quantile(0.5) if len(values) < 1 << 24 else values.median()


def intervals_of(found: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Where each metric of ``summarise`` lies in bootstrap samples of the queries."""
    return {
        name: interval(v.double().cpu(), median if name == "median_rank" else None)
        for name, v in found.items()
    }
