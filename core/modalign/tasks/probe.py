"""Probes: a plain classifier on frozen embeddings, its one setting chosen on held-out items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from modalign.contracts import Report, Split
from modalign.errors import UserError

from .bootstrap import interval
from .labelled import Labelled, asked, balanced, labelled, learnt
from .zero_shot import class_name, per_class

Predict = Callable[[Labelled, Tensor, Sequence[Any]], list[Tensor]]
"""Items to learn from, ``(Q, D)`` vectors, settings -> for each setting the ``(Q,)`` predicted classes."""

FOLDS = 5


def settings(name: str, values: float | Iterable[float]) -> tuple[Any, ...]:
    """One setting or several, each above 0, ascending.

    Raises:
        UserError: if there is none, or one is not above 0.
    """
    found = (values,) if isinstance(values, int | float) else tuple(values)
    if not found or not all(isinstance(v, int | float) and v > 0 for v in found):
        raise UserError(f"{name} {list(found)}: give one number above 0, or several to choose from")
    return tuple(sorted(set(found)))


def probe(
    space: Any,
    data: Split,
    modalities: tuple[str, ...],
    how: str,
    predict: Predict,
    choices: tuple[str, Sequence[Any]],
    train: str = "train",
    val: str = "val",
) -> Report:
    """Learn from one split, choose the setting on another or by cross-validation, judge on ``data``.

    The chosen setting is learnt from ``train`` alone. Items whose classes do not occur there are left out.

    Inputs:
        predict: the classifier.
        choices: the setting's name and its values; of equally good ones the first is taken.

    Raises:
        UserError: as ``learnt`` and ``asked``.
    """
    known = learnt(space, data, train, modalities, how)
    items = asked(space, data, known.labels, modalities, how)
    name, values = choices
    held_out = validation(space, data, val, known.labels, modalities, how) if len(values) > 1 else None
    scores = choose(predict, known, held_out, values)  # (V,)
    best = values[int(scores.argmax())]
    right = items.right(predict(known, items.vectors, [best])[0])  # (N,)
    report = judged(data, items, right, known.labels)
    report.tables["choice"] = [
        {name: v, "accuracy": float(s), "chosen": v == best}
        for v, s in zip(values, scores, strict=True)
        if len(values) > 1
    ]
    report.tables["sizes"][0] |= {"learnt_from": len(known)}
    return report


def validation(
    space: Any, data: Split, val: str, known: Tensor, modalities: tuple[str, ...], how: str
) -> Labelled | None:
    """The items to choose the setting on, or None: then it is cross-validated.

    The measured split is never among them.
    """
    if data.name == val:
        return None
    try:
        found = labelled(space, data.other(val), modalities, how).among(known)
    except UserError:
        return None
    return found if len(found) else None


def choose(predict: Predict, known: Labelled, held_out: Labelled | None, values: Sequence[Any]) -> Tensor:
    """``(V,)`` accuracy of each setting, on ``held_out`` or by stratified cross-validation of ``known``."""
    if len(values) == 1 or (held_out is None and len(known) < 2):
        return torch.zeros(len(values))
    if held_out is not None:
        predictions = predict(known, held_out.vectors, values)
        return torch.stack([held_out.right(p).double().mean() for p in predictions])
    fold = folds(known)  # (N,)
    right = torch.zeros(len(values), len(known))  # (V, N)
    for i in range(int(fold.max()) + 1):
        here = fold[known.pairs[:, 0]] == i  # (M,)
        rest, part = known.keep(known.pairs[~here]), known.keep(known.pairs[here])
        for row, predicted in zip(right, predict(rest, part.vectors, values), strict=True):
            row[fold == i] = part.right(predicted).float()
    return right.double().mean(1)


def folds(items: Labelled, count: int = FOLDS) -> Tensor:
    """``(N,)`` which of ``count`` parts an item is in: every class is spread evenly; always the same."""
    first = torch.searchsorted(items.pairs[:, 0].contiguous(), torch.arange(len(items)))  # (N,)
    shuffled = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))  # (N,)
    order = shuffled[items.pairs[first, 1][shuffled].argsort(stable=True)]  # (N,) by class, then at random
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order)) % min(count, len(order)))


def judged(data: Split, items: Labelled, right: Tensor, labels: Tensor) -> Report:
    """``accuracy`` and ``balanced_accuracy``, and a table of the classes.

    Inputs:
        right: ``(N,)`` bool.
        labels: ``(C,)`` the classes there are to choose among.
    """
    chance = items.chance(len(labels))
    mean, between = balanced(items, right)
    place = torch.searchsorted(labels, items.pairs[:, 1].contiguous())  # (M,)
    counts = place.bincount(minlength=len(labels)).double()  # (C,)
    hits = place.bincount(right[items.pairs[:, 0]].double(), minlength=len(labels))  # (C,)
    names = [class_name(data, int(i)) for i in labels]
    return Report(
        {"accuracy": float(right.double().mean()), "balanced_accuracy": mean},
        intervals={"accuracy": interval(right.double()), "balanced_accuracy": between},
        chance={"accuracy": chance, "balanced_accuracy": 1 / len(labels)},
        tables={
            "sizes": [{"items": len(items), "left_out": items.left_out, "classes": len(labels)}],
            "classes": per_class(names, counts, hits),
        },
    )
