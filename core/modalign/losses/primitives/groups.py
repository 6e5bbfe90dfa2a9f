"""Rows of equal content: which they are, and sums over them without comparing all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.contracts import Embeddings


def duplicate_codes(z: Embeddings, names: tuple[str, ...], rows: Tensor) -> tuple[Tensor, ...]:
    """Per modality with ``ids``, an integer for each row ``(R,)``: equal where content is, -1 where unique.

    Modalities in which every row is unique are left out.
    """
    found = []
    for name in names:
        if name in z.ids:
            code, count = numbered(z.ids[name][rows])  # (R,), (G,)
            if len(count) < len(rows):
                found.append(code.masked_fill(count[code] == 1, -1))
    return tuple(found)


def numbered(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's group ``(R,)`` in 0, 1, … and the groups' sizes ``(G,)``."""
    _, code, count = ids.unique(return_inverse=True, return_counts=True)
    return code, count


def sum_over_same(values: Tensor, codes: tuple[Tensor, ...]) -> Tensor:
    """``(R, ...)``: for each row the sum of ``values`` over the rows of equal content, itself included.

    With two codes rows are the same if either agrees: groups of one, plus of the other, minus of
    both. Linear in ``R``.
    """
    if not codes:
        return values
    if len(codes) == 1:
        return _sum(values, alone(codes[0]))
    first, second = (alone(code) for code in codes)
    both = first * (int(second.max()) + 1) + second  # (R,)
    return _sum(values, first) + _sum(values, second) - _sum(values, both)


def alone(code: Tensor) -> Tensor:
    """Codes in which every row marked -1 is a group of its own."""
    own = torch.arange(len(code), device=code.device) + code.max() + 1  # (R,)
    return torch.where(code < 0, own, code)


def _sum(values: Tensor, code: Tensor) -> Tensor:
    group, count = numbered(code)  # (R,), (G,)
    sums = values.new_zeros(len(count), *values.shape[1:]).index_add(0, group, values)  # (G, ...)
    return sums[group]  # (R, ...)
