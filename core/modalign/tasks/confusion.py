"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .ranking import score_blocks

MOST = 60
"""Classes in a figure; beyond, only the worst confusions can be read."""
WORST = 20


def confusion(vectors: Tensor, prototypes: Tensor, answers: Tensor) -> Tensor:
    """``(C, C)`` float64: of the items of each class, how many are nearest to each.

    An item of several classes counts once, shared between them. Between equals the first is taken.

    Inputs:
        vectors: ``(K, D)`` items.
        prototypes: ``(C, D)``.
        answers: ``(L, 2)`` item, class.
    """
    nearest = torch.empty(len(vectors), dtype=torch.long)  # (K,)
    for part, scores, _ in score_blocks(vectors, prototypes):
        nearest[part] = scores.argmax(1).cpu()
    item, label = answers.cpu().unbind(1)  # (L,), (L,)
    share = 1 / item.bincount(minlength=len(vectors)).double()[item]  # (L,)
    size = len(prototypes)
    cells = torch.zeros(size * size, dtype=torch.float64)
    return cells.index_add(0, label * size + nearest[item], share).reshape(size, size)


def worst(counts: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The commonest confusions, as rows."""
    wrong = counts.clone().fill_diagonal_(0)  # (C, C)
    values, places = wrong.flatten().sort(descending=True, stable=True)
    rows = zip(values[:WORST].tolist(), places[:WORST].tolist(), strict=True)
    return [
        {"class": names[place // len(names)], "taken for": names[place % len(names)], "items": value}
        for value, place in rows
        if value > 0
    ]


def figure(counts: Tensor, names: Sequence[str]) -> Any:
    """Counts as a heat map: a row per class, a column per answer, shaded by the share of the row."""
    from matplotlib.figure import Figure

    side = max(4.0, 0.32 * len(names) + 1.5)
    drawing = Figure(figsize=(side, side), layout="constrained")
    axes = drawing.subplots()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)  # (C, C)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), list(names), rotation=90)
    axes.set_yticks(range(len(names)), list(names))
    axes.set_xlabel("nearest")
    axes.set_ylabel("is")
    if len(names) <= 20:
        for i, row in enumerate(counts.tolist()):
            for j, count in enumerate(row):
                if count:
                    ink = "white" if shares[i, j] > 0.5 else "black"
                    axes.text(j, i, f"{count:g}", ha="center", va="center", color=ink, fontsize=8)
    return drawing
