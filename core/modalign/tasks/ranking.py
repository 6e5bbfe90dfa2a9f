"""Ranks of right answers among candidates, streamed over the queries."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 24
"""Scores held at once: 16 million, 64 MB in float32."""

TIE = 1e-6
"""Cosines nearer than this are a tie: equal rows may differ by rounding, depending on their place."""


def score_blocks(
    queries: Tensor, candidates: Tensor, block: int | None = None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The score matrix ``queries · candidatesᵀ`` a few queries at a time.

    Inputs:
        queries, candidates: ``(N, D)`` and ``(K, D)``.
        block: scores held at once; default ``BLOCK``.

    Yields:
        the queries' slice, their scores ``(n, K)`` with NaN made ``-inf``, their tie widths ``(n, 1)``.
    """
    if queries.dtype.itemsize < 4:
        queries, candidates = queries.float(), candidates.float()
    candidates = candidates.to(queries)
    step = max(1, (block or BLOCK) // max(1, len(candidates)))
    longest = candidates.norm(dim=1).max()  # ()
    for start in range(0, len(queries), step):
        some = queries[start : start + step]  # (n, D)
        scores = some @ candidates.T  # (n, K)
        width = TIE * longest * some.norm(dim=1, keepdim=True)  # (n, 1); no score is larger than width / TIE
        if not width.isfinite().all():
            scores.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            width.nan_to_num_(0, 0, 0)
        yield slice(start, start + len(some)), scores, width


def best_ranks(queries: Tensor, candidates: Tensor, pairs: Tensor, block: int | None = None) -> Tensor:
    """The rank of each query's best positive: 1 + wrong candidates above it + half of those tied with it.

    Inputs:
        queries, candidates: ``(N, D)`` and ``(K, D)``.
        pairs: ``(L, 2)`` long, distinct: query, a positive of it; ordered by query.

    Returns:
        ``(N,)`` float64; NaN where a query has no positive.
    """
    ranks = torch.full((len(queries),), torch.nan, dtype=torch.float64, device=queries.device)  # (N,)
    for part, scores, width in score_blocks(queries, candidates, block):
        ends = torch.tensor([part.start, part.stop], device=pairs.device)
        low, high = torch.searchsorted(pairs[:, 0].contiguous(), ends).tolist()
        row, column = pairs[low:high, 0] - part.start, pairs[low:high, 1]  # (l,), (l,)
        right = scores[row, column]  # (l,)
        best = scores.new_full((len(scores),), -torch.inf).scatter_reduce(0, row, right, "amax")  # (n,)
        floor = best.unsqueeze(1) - width  # (n, 1)
        above = (scores > best.unsqueeze(1) + width).sum(1, dtype=torch.int32)  # (n,)
        tied = (scores >= floor).sum(1, dtype=torch.int32) - above  # (n,)
        # Other positives are no rivals. None is above the best one, some may be tied with it.
        own = (right >= floor.squeeze(1)[row]).int()  # (l,)
        tied = tied - torch.zeros_like(tied).scatter_add(0, row, own)  # (n,)
        answered = torch.zeros_like(tied, dtype=torch.bool).index_fill(0, row, True)  # (n,)
        ranks[part] = torch.where(answered, 1 + above + tied.double() / 2, torch.nan)
    return ranks


FEW = 16
"""Positives of one query that are counted one by one; the scores of a query with more are sorted."""


def every_rank(queries: Tensor, candidates: Tensor, pairs: Tensor, block: int | None = None) -> Tensor:
    """The rank of every positive: the ``j``-th best has ``j`` + wrong ones above + half of those tied.

    Inputs:
        queries, candidates, pairs: as for ``best_ranks``.

    Returns:
        ``(L,)`` float64: those of a query stand where its pairs stand, ascending. The first one is
        that of ``best_ranks``.
    """
    ranks = torch.empty(len(pairs), dtype=torch.float64, device=queries.device)  # (L,)
    for part, scores, width in score_blocks(queries, candidates, block):
        ends = torch.tensor([part.start, part.stop], device=pairs.device)
        low, high = torch.searchsorted(pairs[:, 0].contiguous(), ends).tolist()
        if low == high:
            continue
        row, column = pairs[low:high, 0] - part.start, pairs[low:high, 1]  # (l,), (l,)
        count = torch.bincount(row, minlength=len(scores))  # (n,)
        place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]  # (l,)
        own = scores.new_full((len(scores), int(count.max())), -torch.inf)  # (n, P)
        own[row, place] = scores[row, column]
        own = own.sort(dim=1, descending=True).values
        above, least = counts(scores, own, width)  # (n, P), (n, P)
        own_above, own_least = counts(own, own, width)  # (n, P), (n, P)
        own_least = own_least.minimum(count.unsqueeze(1))  # without the filling
        wrong = above - own_above  # (n, P)
        tied = (least - own_least) - wrong  # (n, P)
        ranks[low:high] = place + 1 + (wrong + tied.double() / 2)[row, place]
    return ranks


def counts(scores: Tensor, marks: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """How many ``scores (n, K)`` lie above each of ``marks (n, P)``, and how many not below; ``(n, P)``."""
    if marks.shape[1] <= FEW:
        each = [marks[:, j : j + 1] for j in range(marks.shape[1])]  # (n, 1)
        above = [(scores > mark + width).sum(1, dtype=torch.int32) for mark in each]
        least = [(scores >= mark - width).sum(1, dtype=torch.int32) for mark in each]
        return torch.stack(above, 1), torch.stack(least, 1)
    above, least = [], []
    step = max(1, (BLOCK >> 2) // scores.shape[1])
    for some, mark, w in zip(scores.split(step), marks.split(step), width.split(step), strict=True):
        ordered = some.sort(dim=1).values  # (n', K)
        above.append(torch.searchsorted(ordered, mark + w, right=True))
        least.append(torch.searchsorted(ordered, mark - w))
    return scores.shape[1] - torch.cat(above), scores.shape[1] - torch.cat(least)


def join(left: Tensor, right: Tensor) -> Tensor:
    """Pairs that share a key: ``(L, 2)`` a, key and ``(M, 2)`` b, key -> ``(P, 2)`` distinct a, b, sorted."""
    right = right[right[:, 1].argsort()]  # (M, 2) by key
    keys = right[:, 1].contiguous()  # (M,)
    first = torch.searchsorted(keys, left[:, 1].contiguous())  # (L,)
    count = torch.searchsorted(keys, left[:, 1].contiguous(), right=True) - first  # (L,)
    a = left[:, 0].repeat_interleave(count)  # (P',)
    # Position of each match inside its run of equal keys.
    offset = torch.arange(len(a), device=a.device) - (count.cumsum(0) - count).repeat_interleave(count)
    b = right[first.repeat_interleave(count) + offset, 0]  # (P',)
    return torch.stack([a, b], 1).unique(dim=0)  # (P, 2)


def chance_at(k: int, positives: Tensor, candidates: int) -> float:
    """How often a random order puts one of a query's positives among the first ``k``, on average.

    ``1 - C(K-P, k) / C(K, k)`` for ``P`` positives among ``K`` candidates.

    Inputs:
        positives: ``(Q,)`` long, how many each query has.
    """
    p = positives.double()  # (Q,)
    missed = torch.ones_like(p)  # (Q,)
    for drawn in range(min(k, candidates)):
        missed = missed * (1 - p / (candidates - drawn)).clamp(min=0)
    return float((1 - missed).mean())
