"""Items to ask with: of one modality, or of several in a row taken together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from modalign.combine import combined
from modalign.contracts import Items, Split
from modalign.errors import UserError

from .ranking import join


def as_names(modalities: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, each once.

    Raises:
        UserError: if there is none, or one stands there twice.
    """
    names = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if not names or len(set(names)) < len(names):
        raise UserError(f"modalities {list(names)}: name one, or several different ones")
    return names


def items_of(space: Any, data: Split, modality: str) -> Items:
    """The split's items of that modality.

    Raises:
        UserError: if there is none.
    """
    items = data.embed(space, modality)
    if not len(items):
        raise UserError(
            f"split {data.name!r} has no readable {modality} in its {data.rows} rows; "
            f"check the column of {modality} and quarantine.csv, or drop the task"
        )
    return items


def joint_items(space: Any, data: Split, modalities: tuple[str, ...], how: str = "product") -> Items:
    """The items of one modality; of several, one item per row that has all of them, combined.

    A row with alternatives gives one item per choice among them.

    Raises:
        UserError: if there is none.
    """
    first, *others = (items_of(space, data, m) for m in modalities)
    if not others:
        return first
    rows = first.links[:, 1]  # (C,)
    vectors = [first.vectors[first.links[:, 0]]]  # each (C, D)
    for items in others:
        here = torch.stack([torch.arange(len(rows), device=rows.device), rows], 1)  # (C, 2)
        choice, item = join(here, items.links).unbind(1)  # (C',), (C',)
        rows = rows[choice]
        vectors = [v[choice] for v in vectors] + [items.vectors[item]]
    if not len(rows):
        raise UserError(f"no row of split {data.name!r} has all of {', '.join(modalities)}")
    number = torch.arange(len(rows), device=rows.device)  # (C,)
    return Items(combined(vectors, how), torch.stack([number, rows], 1))
