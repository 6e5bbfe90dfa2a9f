"""Retrieval: find the items of one modality with those of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.combine import check_combine
from modalign.contracts import Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .chance import chance_map, chance_mrr, chance_ndcg
from .class_recall import class_chance, class_hits, offered_labels
from .class_recall import item_labels as item_labels
from .joint import as_names, items_of, joint_items
from .rank_metrics import intervals_of, of_best, scores_of, summarise
from .ranking import best_ranks, chance_at, every_rank, join

Positives = Tensor | Sequence[Sequence[int]]


def retrieval_metrics(
    queries: Tensor,
    candidates: Tensor,
    positives: Positives | None = None,
    ks: Iterable[int] = (1, 5, 10),
    every: bool = False,
) -> dict[str, float]:
    """How high each query ranks its positives by ``queries · candidatesᵀ``.

    A tie counts as half a rank, so a space where all is equal does not score. The score matrix is
    streamed. Queries without a positive are left out; their number is then given as ``left_out``.

    Inputs:
        queries, candidates: ``(N, D)`` and ``(K, D)``, unit rows for cosines.
        positives: for each query the indices of its right candidates, or an ``(L, 2)`` tensor of
            query, candidate; default: candidate ``i`` for query ``i``.
        ks: the ``k`` of each ``R@k``, the share of queries with a positive among the first ``k``.
        every: also the metrics of every positive, not of the best alone.

    Returns:
        ``R@k`` for each ``k``, ``MRR`` (mean of 1 / rank) and ``median_rank`` of the best positive;
        of ``every`` one ``nDCG@k`` for each ``k`` above 1 and ``mAP@R`` (Musgrave et al., arXiv
        2003.08505, §3).

    Raises:
        ValueError: if no query has a positive, an index is out of range, or ``N > K`` by default.
    """
    queries, candidates = torch.as_tensor(queries).detach(), torch.as_tensor(candidates).detach()
    pairs = _as_pairs(positives, len(queries), len(candidates)).to(queries.device)  # (L, 2)
    if every:
        found = scores_of(every_rank(queries, candidates, pairs), pairs, ks)
    else:
        ranks = best_ranks(queries, candidates, pairs)  # (N,)
        found = of_best(ranks[~ranks.isnan()], ks)
    metrics = summarise(found)
    left_out = len(queries) - len(pairs[:, 0].unique())
    return metrics | ({"left_out": float(left_out)} if left_out else {})


class Retrieval(Task):
    """Find ``to`` with ``from``: a candidate is right if it shares a row of the table with the query.

    ``R@k``, ``MRR``, ``median_rank``, ``nDCG@k`` and ``mAP@R`` as in ``retrieval_metrics``,
    ``chance_R@1`` of a random order; with labels also ``class_R@1``, the share of queries whose first
    candidate (every one, if several tie) has a label of the query, of those whose class is among the
    candidates.

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
        found = scores_of(every_rank(queries.vectors, candidates.vectors, pairs), pairs, self.ks)
        metrics, intervals = summarise(found), intervals_of(found)
        positives = pairs[:, 0].unique(return_counts=True)[1]  # (Q,)
        chance = self.chance(positives, len(candidates))
        metrics["chance_R@1"] = chance["R@1"]
        if data.labels is not None:
            labels = offered_labels(data.labels, candidates)  # (rows,)
            hits = class_hits(queries, candidates, labels)  # (Q',)
            if len(hits):
                metrics["class_R@1"] = float(hits.double().mean())
                intervals["class_R@1"] = interval(hits.double().cpu())
                chance["class_R@1"] = class_chance(queries, candidates, labels)
        recall = [{"k": k, "R@k": metrics[f"R@{k}"], "chance": chance[f"R@{k}"]} for k in self.ks]
        sizes = {
            "queries": len(positives),
            "left_out": len(queries) - len(positives),
            "candidates": len(candidates),
            "positives_per_query": float(positives.double().mean()),
        }
        return Report(metrics, intervals, chance, tables={"recall": recall, "sizes": [sizes]})

    def chance(self, positives: Tensor, candidates: int) -> dict[str, float]:
        """What a random order gives, by metric."""
        chance = {f"R@{k}": chance_at(k, positives, candidates) for k in self.ks}
        chance |= {f"nDCG@{k}": chance_ndcg(k, positives, candidates) for k in self.ks if k > 1}
        chance["MRR"] = chance_mrr(positives, candidates)
        chance["mAP@R"] = chance_map(positives, candidates)
        return chance


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
