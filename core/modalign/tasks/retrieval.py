"""Retrieval: find the items of one modality with those of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.combine import check_combine
from modalign.contracts import Items, Report, Split, Task
from modalign.errors import UserError

from .joint import as_names, items_of, joint_items
from .ranking import best_ranks, chance_at, join, score_blocks

Positives = Tensor | Sequence[Sequence[int]]


def retrieval_metrics(
    queries: Tensor,
    candidates: Tensor,
    positives: Positives | None = None,
    ks: Iterable[int] = (1, 5, 10),
) -> dict[str, float]:
    """How high each query ranks its best positive by ``queries · candidatesᵀ``.

    A tie counts as half a rank, so a space where all is equal does not score. The score matrix is
    streamed. Queries without a positive are left out; their number is then given as ``left_out``.

    Inputs:
        queries, candidates: ``(N, D)`` and ``(K, D)``, unit rows for cosines.
        positives: for each query the indices of its right candidates, or an ``(L, 2)`` tensor of
            query, candidate; default: candidate ``i`` for query ``i``.
        ks: the ``k`` of each ``R@k``, the share of queries with a positive among the first ``k``.

    Returns:
        ``R@k`` for each ``k``, ``MRR`` (mean of 1 / rank) and ``median_rank``.

    Raises:
        ValueError: if no query has a positive, an index is out of range, or ``N > K`` by default.
    """
    queries, candidates = torch.as_tensor(queries).detach(), torch.as_tensor(candidates).detach()
    pairs = _as_pairs(positives, len(queries), len(candidates)).to(queries.device)  # (L, 2)
    ranks = best_ranks(queries, candidates, pairs)  # (N,)
    return summarise(ranks, ks)


def summarise(ranks: Tensor, ks: Iterable[int]) -> dict[str, float]:
    """``(N,)`` ranks, NaN where there is no answer, as ``R@k``, ``MRR`` and ``median_rank``."""
    known = ranks[~ranks.isnan()]  # (Q,)
    metrics = {f"R@{k}": float((known <= k).double().mean()) for k in ks}
    metrics["MRR"] = float((1 / known).mean())
    metrics["median_rank"] = float(known.quantile(0.5)) if len(known) < 1 << 24 else float(known.median())
    if len(known) < len(ranks):
        metrics["left_out"] = float(len(ranks) - len(known))
    return metrics


class Retrieval(Task):
    """Find ``to`` with ``from``: a candidate is right if it shares a row of the table with the query.

    ``R@k``, ``MRR`` and ``median_rank`` as in ``retrieval_metrics``, ``chance_R@1`` of a random
    order; with labels also ``class_R@1``, the share of queries whose first candidate (every one,
    if several tie) has a label of the query.

    Inputs:
        from_: the modality of the queries, or several: a query is then a row that has all of them;
            ``from`` in a plan.
        to: the modality of the candidates.
        ks: the ``k`` of each ``R@k``; 1 is always among them.
        combine: what several modalities are as one query: their "product" (what Symile trains; see
            ``space.score``) or their "sum" (what InfoNCE trains).

    Raises:
        UserError: if both are the same, or the split has no item of one, or no row with both.
    """

    primary: ClassVar[str] = "R@1"

    def __init__(
        self,
        from_: str | Iterable[str],
        to: str,
        ks: Iterable[int] = (1, 5, 10),
        combine: str = "product",
    ) -> None:
        self.from_, self.to = as_names(from_), to
        self.ks = tuple(sorted({1, *ks}))
        self.combine = check_combine(combine)
        if to in self.from_:
            raise UserError(f"retrieval {self.about}: every item would find itself; name other modalities")
        if self.ks[0] < 1:
            raise UserError(f"retrieval ks {list(self.ks)}: ranks start at 1")

    @property
    def modalities(self) -> tuple[str, ...]:
        return (*self.from_, self.to)

    @property
    def about(self) -> str:
        return f"{'+'.join(self.from_)}->{self.to}"

    def run(self, space: Any, data: Split) -> Report:
        queries = joint_items(space, data, self.from_, self.combine)
        candidates = items_of(space, data, self.to)
        device = queries.vectors.device
        pairs = join(queries.links, candidates.links).to(device)  # (L, 2)
        if not len(pairs):
            raise UserError(
                f"{self.about}: no row of split {data.name!r} has both {' and '.join(self.modalities)}; "
                "check the table's columns, or name a split where they meet"
            )
        ranks = best_ranks(queries.vectors, candidates.vectors, pairs)  # (N,)
        metrics = summarise(ranks, self.ks)
        left_out = int(metrics.pop("left_out", 0))
        positives = pairs[:, 0].unique(return_counts=True)[1]  # (Q,)
        chance = {f"R@{k}": chance_at(k, positives, len(candidates)) for k in self.ks}
        metrics["chance_R@1"] = chance["R@1"]
        if data.labels is not None:
            shares = class_hits(queries, candidates, data.labels)  # (Q',)
            if len(shares):
                metrics["class_R@1"] = float(shares.double().mean())
        recall = [{"k": k, "R@k": metrics[f"R@{k}"], "chance": chance[f"R@{k}"]} for k in self.ks]
        sizes = {
            "queries": len(queries) - left_out,
            "left_out": left_out,
            "candidates": len(candidates),
            "positives_per_query": float(positives.double().mean()),
        }
        return Report(metrics, tables={"recall": recall, "sizes": [sizes]})


def item_labels(items: Items, labels: Tensor) -> Tensor:
    """``(M, 2)`` distinct item, label, over the rows whose label is known."""
    of_row = labels.to(items.links.device)[items.links[:, 1]]  # (L,)
    found = torch.stack([items.links[:, 0], of_row], 1)  # (L, 2)
    return found[of_row >= 0].unique(dim=0)


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


def padded(by_label: Tensor, size: int, fill: int) -> Tensor:
    """``(M, 2)`` item, label, ordered by item -> ``(size, most labels of one item)``, filled up."""
    item, label = by_label.unbind(1)  # (M,), (M,)
    count = torch.zeros(size, dtype=torch.long, device=item.device).index_add(0, item, torch.ones_like(item))
    place = torch.arange(len(item), device=item.device) - (count.cumsum(0) - count)[item]  # (M,)
    table = torch.full((size, max(1, int(count.max()))), fill, device=item.device)  # (size, most)
    table[item, place] = label
    return table


def _as_pairs(positives: Positives | None, queries: int, candidates: int) -> Tensor:
    """``(L, 2)`` long, distinct, ordered by query."""
    if positives is None:
        if queries > candidates:
            raise ValueError(f"{queries} queries but {candidates} candidates: say which are positives")
        pairs = torch.arange(queries).unsqueeze(1).expand(-1, 2)  # (N, 2)
    elif isinstance(positives, Tensor):
        pairs = positives.long().reshape(-1, 2)  # (L, 2)
    else:
        if len(positives) != queries:
            raise ValueError(f"positives for {len(positives)} queries, there are {queries}")
        flat = [(i, int(j)) for i, some in enumerate(positives) for j in some]
        pairs = torch.tensor(flat, dtype=torch.long).reshape(-1, 2)  # (L, 2)
    if not len(pairs):
        raise ValueError("no query has a positive")
    limits = torch.tensor([queries, candidates], device=pairs.device)
    if bool(((pairs < 0) | (pairs >= limits)).any()):
        raise ValueError(f"positives out of range: {queries} queries, {candidates} candidates")
    return pairs.unique(dim=0)
