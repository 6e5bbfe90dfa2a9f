"""Confidence intervals by bootstrap: how far a number would move with other samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DRAWS = 1000


def interval(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor] | None = None,
    *,
    groups: Tensor | None = None,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Between which values the statistic of a resample lies, with probability ``level`` (percentiles).

    Efron, "Bootstrap methods", Annals of Statistics 1979. Samples of one group, such as the images of
    one patient, are drawn together.

    Inputs:
        values: ``(n, ...)``, one entry per query or item.
        statistic: resampled values ``(n, ...)`` -> scalar; default: the mean of ``(n,)`` values.
        groups: ``(n,)`` integers; default: every sample for itself.
    """
    if not len(values):
        return float("nan"), float("nan")
    generator = torch.Generator().manual_seed(seed)
    members = None if groups is None else _members(groups)
    size = len(values) if members is None else len(members)
    values = values.double().cpu() if statistic is None else values
    measure = torch.Tensor.mean if statistic is None else statistic
    found = []
    for _ in range(draws):
        drawn = torch.randint(size, (size,), generator=generator)
        rows = drawn if members is None else torch.cat([members[i] for i in drawn.tolist()])
        found.append(measure(values[rows.to(values.device)]).double().cpu())
    tail = (1 - level) / 2
    low, high = torch.stack(found).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _members(groups: Tensor) -> list[Tensor]:
    """The rows of each group."""
    order = groups.cpu().argsort(stable=True)
    return list(order.split(groups.cpu().unique(return_counts=True)[1].tolist()))
