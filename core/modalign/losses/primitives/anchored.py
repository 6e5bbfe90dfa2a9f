"""One modality against the rest of its row, by any higher-order cost, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modalign.contracts import Embeddings

from .pairs import connected_zero, widen
from .patterns import patterns, places, rows_with
from .two_way import two_way


class Cost(NamedTuple):
    """How badly an anchor and the others of a row go together, from inner products.

    Inputs:
        alone: the others, ``M-1`` of ``(K, D)`` -> what it needs of them alone, each ``(K,)``.
        cost: inner products with the anchor, ``M-1`` of ``(n, K)`` or ``(K,)``; the anchor's square,
            ``(n, 1)`` or ``(K,)``; and ``alone`` -> ``(n, K)`` or ``(K,)``.
    """

    alone: Callable[[Sequence[Tensor]], list[Tensor]]
    cost: Callable[[Sequence[Tensor], Tensor, Sequence[Tensor]], Tensor]


def contrast(
    z: Embeddings,
    names: tuple[str, ...],
    temperature: float | None,
    smoothing: float,
    choose: Callable[[int], Cost],
) -> Tensor:
    """Mean over rows of ``½ [CE(-s·cost(anchor_i, others_j)) + CE(-s·cost(anchor_j, others_i))]``.

    The anchor is the first modality that a row has. A row is compared by what it has, with the rows
    that have this too; one modality alone is not compared.

    Inputs:
        names: the modalities, the anchor first.
        choose: the cost for so many modalities.
    """
    scale = z.scale if temperature is None else 1 / temperature
    losses = []
    with torch.autocast(z.vectors[names[0]].device.type, enabled=False):
        for some, rows in patterns(z, names):
            if len(some) > 1:
                pool = rows_with(z, some)  # (K,)
                anchor, *others = (widen(z.vectors[m][pool]) for m in some)  # (K, D) each
                both = _both_directions(anchor, others, scale, smoothing, choose(len(some)))  # (K,)
                losses.append(both[places(rows, pool)])
    zero = connected_zero(z)
    return torch.cat(losses).mean() + zero if losses else zero


def _both_directions(
    anchor: Tensor, others: list[Tensor], scale: Tensor | float, smoothing: float, cost: Cost
) -> Tensor:
    """``(K,)`` losses of rows ``anchor (K, D)``, ``others`` M-1 of ``(K, D)``."""
    square = anchor.square().sum(1)  # (K,)
    alone = cost.alone(others)  # each (K,)
    factor = torch.as_tensor(scale, dtype=anchor.dtype, device=anchor.device)  # ()

    def logits(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
        products = [rows[0] @ other.T for other in columns[: len(others)]]  # M-1 x (n, K)
        return -rows[2] * cost.cost(products, rows[1].unsqueeze(1), columns[len(others) :])  # (n, K)

    own = [(anchor * other).sum(1) for other in others]  # M-1 x (K,)
    true = -factor * cost.cost(own, square, alone)  # (K,)
    scales = factor.expand(len(anchor), 1)  # (K, 1)
    seen = two_way(logits, [anchor, square, scales], [*others, *alone])
    spread = (seen.row_mean + seen.column_mean) / 2  # (K,)
    return (seen.row_lse + seen.column_lse) / 2 - (1 - smoothing) * true - smoothing * spread


def check_options(temperature: float | None, label_smoothing: float, modalities: object) -> None:
    """
    Raises:
        ValueError: for a value out of range.
    """
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be above 0")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing {label_smoothing}: must be in [0, 1)")
    if isinstance(modalities, tuple) and (len(modalities) < 2 or len(set(modalities)) < len(modalities)):
        raise ValueError(f"modalities {list(modalities)}: name two or more, each once")
