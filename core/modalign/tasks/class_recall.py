"""Which queries find an item of their own class first."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.contracts import Items

from .ranking import score_blocks


def item_labels(items: Items, labels: Tensor) -> Tensor:
    """``(M, 2)`` distinct item, label, over the rows whose label is known."""
    of_row = labels.to(items.links.device)[items.links[:, 1]]  # (L,)
    found = torch.stack([items.links[:, 0], of_row], 1)  # (L, 2)
    return found[of_row >= 0].unique(dim=0)


def offered_labels(labels: Tensor, candidates: Items) -> Tensor:
    """``(rows,)`` labels, -1 where no candidate is of that class: nothing could answer such a query."""
    offered = item_labels(candidates, labels)[:, 1].unique().to(labels.device)
    return labels.masked_fill(~torch.isin(labels, offered), -1)


def class_hits(queries: Items, candidates: Items, labels: Tensor) -> Tensor:
    """``(Q,)`` bool for the queries with a label: every candidate tied at the top shares one."""
    device = queries.vectors.device
    asked, offered = (item_labels(i, labels).to(device) for i in (queries, candidates))  # (M, 2) each
    known = asked[:, 0].unique()  # (Q,)
    if not len(known):
        return torch.zeros(0, dtype=torch.bool, device=device)
    wanted = padded(asked, len(queries), -1)  # (N, A)
    given = padded(offered, len(candidates), -2)  # (K, B)
    hits = torch.ones(len(queries), dtype=torch.bool, device=device)  # (N,)
    for part, scores, width in score_blocks(queries.vectors, candidates.vectors):
        top = scores >= scores.amax(1, keepdim=True) - width  # (n, K)
        for some in top.nonzero().split(1 << 16):  # (t, 2)
            query, candidate = some[:, 0] + part.start, some[:, 1]  # (t,), (t,)
            shared = wanted[query].unsqueeze(2) == given[candidate].unsqueeze(1)  # (t, A, B)
            hits[query[~shared.flatten(1).any(1)]] = False
    return hits[known]


def class_chance(queries: Items, candidates: Items, labels: Tensor) -> float:
    """The share of candidates with a label of the query, the mean over the queries with a label."""
    asked, offered = (item_labels(i, labels).cpu() for i in (queries, candidates))  # (M, 2) each
    wanted = padded(asked, len(queries), -1)[asked[:, 0].unique()]  # (Q, A)
    given = padded(offered, len(candidates), -2)  # (K, B)
    kinds, times = wanted.unique(dim=0, return_counts=True)  # (U, A), (U,)
    shares = [torch.isin(given, kind).any(1).double().mean() for kind in kinds]
    return float((torch.stack(shares) * times).sum() / times.sum())


def padded(by_label: Tensor, size: int, fill: int) -> Tensor:
    """``(M, 2)`` item, label, ordered by item -> ``(size, most labels of one item)``, filled up."""
    item, label = by_label.unbind(1)  # (M,), (M,)
    count = torch.zeros(size, dtype=torch.long, device=item.device).index_add(0, item, torch.ones_like(item))
    place = torch.arange(len(item), device=item.device) - (count.cumsum(0) - count)[item]  # (M,)
    table = torch.full((size, max(1, int(count.max()))), fill, device=item.device)  # (size, most)
    table[item, place] = label
    return table
