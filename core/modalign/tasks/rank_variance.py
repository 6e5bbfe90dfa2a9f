"""Rank variance: does the same thing, asked in several languages, get the same answer?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.contracts import Items, Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .joint import as_names, items_of
from .ranking import best_ranks, join


class RankVariance(Task):
    """Mean rank variance over languages, each a modality: 0 where all find a row's answer equally well.

    ``MRV``: ``mean_rows var_languages(rank)``, the variance of ``L`` languages over ``L``, as the
    paper has it (1-to-K, Nie et al., arXiv 2406.18254); its reference code prints a mean standard
    deviation, here ``rank_std``. ``MRV`` alone is 0 as well where every language fails alike, so
    ``mean_rank`` stands beside it. Lower is better. Table ``languages``: each one's mean rank,
    ``R@1``, and how far its rank is from the row's mean. Chance of ``MRV``: independent random
    orders, ``(1 - 1 / L) (K² - 1) / 12``; it is given where every query has a single right one.

    A row counts if it has every language and an answer; several items of a language in one row
    count by their mean rank.

    Inputs:
        from_: the languages, two or more; ``from`` in a plan.
        to: the modality of the candidates.

    Raises:
        UserError: if there are fewer than two languages, ``to`` is one of them, the split has no item
            of one, or no row with all.
    """

    primary: ClassVar[str] = "MRV"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, from_: Iterable[str], to: str) -> None:
        self.from_, self.to = as_names(from_), to
        if len(self.from_) < 2:
            raise UserError(f"rank_variance from {self.from_[0]}: name two languages or more")
        if to in self.from_:
            raise UserError(f"rank_variance {self.about}: every item would find itself; name another `to`")

    @property
    def modalities(self) -> tuple[str, ...]:
        return (*self.from_, self.to)

    @property
    def about(self) -> str:
        return f"{'+'.join(self.from_)}->{self.to}"

    def run(self, space: Any, data: Split) -> Report:
        candidates = items_of(space, data, self.to)
        single, each = True, []
        for language in self.from_:
            queries = items_of(space, data, language)
            pairs = join(queries.links, candidates.links).to(queries.vectors.device)  # (P, 2)
            single &= len(pairs) == len(pairs[:, 0].unique())
            ranks = best_ranks(queries.vectors, candidates.vectors, pairs).cpu()  # (K,)
            each.append(by_row(ranks, queries, data.rows))  # (rows,)
        answers = torch.zeros(data.rows, dtype=torch.bool)  # (rows,)
        answers[candidates.links[:, 1].cpu()] = True
        ranks = torch.stack(each, 1)  # (rows, L)
        ranks = ranks[answers & ~ranks.isnan().any(1)]  # (R, L)
        if not len(ranks):
            raise UserError(f"rank_variance: no row of split {data.name!r} has all of {self.about}")
        variance = ranks.var(1, correction=0)  # (R,)
        values = {"MRV": variance, "rank_std": variance.sqrt(), "mean_rank": ranks.mean(1)}  # (R,) each
        total = len(candidates)
        chance = {"mean_rank": (total + 1) / 2, "MRV": (1 - 1 / len(self.from_)) * (total**2 - 1) / 12}
        off = ranks - ranks.mean(1, keepdim=True)  # (R, L)
        languages = [
            {
                "language": name,
                "mean_rank": float(ranks[:, i].mean()),
                "R@1": float((ranks[:, i] <= 1).double().mean()),
                "off_the_mean": float(off[:, i].mean()),
            }
            for i, name in enumerate(self.from_)
        ]
        sizes = {"rows": len(ranks), "languages": len(self.from_), "candidates": total}
        return Report(
            {name: float(v.mean()) for name, v in values.items()},
            {name: interval(v) for name, v in values.items()},
            chance if single else {},
            tables={"languages": languages, "sizes": [sizes]},
        )


def by_row(ranks: Tensor, queries: Items, rows: int) -> Tensor:
    """The mean of ``ranks (K,)`` of a row's items: ``(rows,)``, NaN where it has none or one has none."""
    item, row = queries.links.cpu().unique(dim=0).unbind(1)  # (L,), (L,)
    count = torch.zeros(rows, dtype=torch.float64).index_add(0, row, torch.ones(len(row)).double())  # (rows,)
    return torch.zeros_like(count).index_add(0, row, ranks[item]) / count
