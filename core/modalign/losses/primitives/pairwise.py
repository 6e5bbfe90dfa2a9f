"""What losses that compare two modalities at a time have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modalign.contracts import Embeddings
from modalign.errors import suggest

from .groups import duplicate_codes
from .pairs import Pairs, common_rows, connected_zero, pairs_of, widen
from .scores import Keys

REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Pair:
    """Two modalities on the rows that hold both.

    Inputs:
        a, b: their names.
        rows: ``(R,)`` indices into the batch.
        x, y: ``(R, D)``, at least float32.
        codes: per modality with duplicates ``(R,)``: equal where content is, -1 where unique.
    """

    a: str
    b: str
    rows: Tensor
    x: Tensor
    y: Tensor
    codes: tuple[Tensor, ...]


def over_pairs(
    z: Embeddings,
    own: Pairs | None,
    reduction: str,
    compare: Callable[[Pair], Tensor],
    duplicates: bool = True,
) -> Tensor:
    """``compare`` on every pair that shares a row, averaged or summed; a connected zero without any."""
    losses = []
    for a, b, rows in common_rows(z, pairs_of(z, own)):
        codes = duplicate_codes(z, (a, b), rows) if duplicates else ()
        losses.append(compare(Pair(a, b, rows, take(z.vectors[a], rows), take(z.vectors[b], rows), codes)))
    if not losses:
        return connected_zero(z)
    total = torch.stack(losses).sum()  # ()
    return total / len(losses) if reduction == "mean" else total


def take(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` in at least float32; without a copy if it is all of them."""
    return widen(x if len(rows) == len(x) else x.index_select(0, rows))


def both_views(pair: Pair) -> tuple[Tensor, Keys]:
    """``(2R, D)``: the rows of one modality above those of the other; and their duplicates."""
    codes = [code.repeat(2) for code in pair.codes]  # (2R,) each
    return torch.cat([pair.x, pair.y]), tuple((code, code) for code in codes)


def scale_of(z: Embeddings, temperature: float | None) -> Tensor | float:
    return z.scale if temperature is None else 1 / temperature


def check_options(
    temperature: float | None = None, reduction: str = "mean", duplicates: str = "mask", known: Any = ()
) -> None:
    """Refuse a loss's arguments early.

    Raises:
        ValueError: with the argument, what it may be, and the nearest valid word.
    """
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be above 0")
    for name, value, options in (
        ("reduction", reduction, REDUCTIONS),
        ("duplicates", duplicates, known or (duplicates,)),
    ):
        if value not in options:
            raise ValueError(
                f"{name} {value!r}: use one of {', '.join(options)}" + suggest(str(value), options)
            )
