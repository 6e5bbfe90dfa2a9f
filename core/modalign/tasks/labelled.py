"""Items and the classes of their rows, for tasks that learn from labels or are judged by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modalign.contracts import Split
from modalign.errors import UserError

from .bootstrap import interval
from .joint import joint_items
from .retrieval import item_labels


@dataclass(frozen=True)
class Labelled:
    """The items of a split that have a known class, on the CPU.

    Inputs:
        vectors: ``(N, D)`` unit rows, float32.
        pairs: ``(M, 2)`` long, distinct: item, a class of it; ordered by item, every item at least once.
        left_out: how many items of the split are not here.
    """

    vectors: Tensor
    pairs: Tensor
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def labels(self) -> Tensor:
        """The classes that occur, ascending."""
        return self.pairs[:, 1].unique()

    def keep(self, pairs: Tensor) -> Labelled:
        """Only what these ``(M', 2)`` of the pairs name; items of none are left out."""
        items, place = pairs[:, 0].unique(return_inverse=True)  # (N',), (M',)
        kept = torch.stack([place, pairs[:, 1]], 1)  # (M', 2)
        return Labelled(self.vectors[items], kept, self.left_out + len(self) - len(items))

    def among(self, labels: Tensor) -> Labelled:
        """Without the classes that are not in ``labels``."""
        return self.keep(self.pairs[torch.isin(self.pairs[:, 1], labels)])

    def right(self, predicted: Tensor) -> Tensor:
        """``(N,)`` predicted classes -> ``(N,)`` bool: whether the item has that class."""
        item, label = self.pairs.unbind(1)  # (M,), (M,)
        return torch.zeros(len(self), dtype=torch.bool).index_fill(0, item[predicted[item] == label], True)

    def chance(self, classes: int) -> float:
        """How often one of ``classes`` drawn at random is right."""
        return len(self.pairs) / max(1, len(self)) / classes


def labelled(space: Any, data: Split, modalities: tuple[str, ...], how: str = "product") -> Labelled:
    """The split's items of a modality, or of several combined, that have a class.

    Raises:
        UserError: if the data have no labels, no item has one, or a vector is not finite.
    """
    if data.labels is None:
        raise UserError("this task needs classes: add `label`, the column of their names, to the plan's data")
    items = joint_items(space, data, modalities, how)
    pairs = item_labels(items, data.labels).cpu()  # (M, 2)
    if not len(pairs):
        raise UserError(f"no item of {'+'.join(modalities)} in split {data.name!r} has a label")
    vectors = normalize(items.vectors.float().cpu(), dim=1)  # (N, D)
    if not vectors.isfinite().all():
        raise UserError(f"some embedding of {'+'.join(modalities)} in split {data.name!r} is not finite")
    return Labelled(vectors, torch.empty(0, 2)).keep(pairs)


def learnt(
    space: Any, data: Split, split: str, modalities: tuple[str, ...], how: str = "product"
) -> Labelled:
    """The labelled items of another split, to learn classes from.

    Raises:
        UserError: as ``labelled``; if it is the measured split itself, or has fewer than two classes.
    """
    if data.name == split:
        raise UserError(f"what learns from split {split!r} cannot be measured on it: name another")
    found = labelled(space, data.other(split), modalities, how)
    if len(found.labels) < 2:
        raise UserError(f"split {split!r} has labels of one class; there must be two to tell apart")
    return found


def asked(
    space: Any, data: Split, known: Tensor, modalities: tuple[str, ...], how: str = "product"
) -> Labelled:
    """The labelled items to judge by: those with a class among the ``known``.

    Raises:
        UserError: as ``labelled``; if there is none.
    """
    found = labelled(space, data, modalities, how).among(known)
    if not len(found):
        raise UserError(f"no {'+'.join(modalities)} of split {data.name!r} has a class that was learnt")
    return found


def balanced(items: Labelled, right: Tensor) -> tuple[float, tuple[float, float]]:
    """The mean over classes of the share of their items that is right, and its interval."""
    return by_class(items, right, lambda shares, counts: shares.mean())


def by_class(
    items: Labelled, right: Tensor, summary: Callable[[Tensor, Tensor], Tensor]
) -> tuple[float, tuple[float, float]]:
    """A summary of how many items of each class are right, and its interval.

    Inputs:
        right: ``(N,)`` bool.
        summary: of the classes that occur, the share of right items ``(C,)`` float64 and the number
            of items ``(C,)`` -> scalar.
    """
    item, label = items.pairs.unbind(1)  # (M,), (M,)
    values = torch.stack([label, right[item].long()], 1)  # (M, 2)

    def statistic(drawn: Tensor) -> Tensor:
        counts = drawn[:, 0].bincount()  # (C,)
        hits = drawn[:, 0].bincount(drawn[:, 1].double(), len(counts))  # (C,)
        seen = counts > 0  # (C,)
        return summary((hits / counts)[seen], counts[seen])

    groups = item if len(item) > len(items) else None  # an item of two classes is drawn as one
    return float(statistic(values)), interval(values, statistic, groups=groups)
