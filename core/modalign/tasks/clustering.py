"""Clustering: whether the classes are the groups that a space shows by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.combine import check_combine
from modalign.contracts import Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .joint import as_names
from .labelled import labelled

SHUFFLES = 20


class Clustering(Task):
    """k-means with as many clusters as there are classes, held against the classes.

    ``NMI``, normalised mutual information (arithmetic mean of the entropies); ``ARI``, the adjusted
    Rand index (Hubert and Arabie 1985); ``accuracy`` after the best one-to-one matching of clusters
    and classes (Kuhn's Hungarian method). Chance is what shuffled clusters of the same sizes give,
    for ARI 0. The intervals resample the items, not the clusters; that of NMI is reflected at its value
    (the basic bootstrap), as a resample's repeats raise it. Items with several classes are left
    out: no partition has a place for them.

    Inputs:
        modality: what is clustered; or several: each row that has all of them is.
        starts: k-means is begun that often; the tightest result counts.
        combine: what several modalities are as one: their "product" (Symile) or "sum" (InfoNCE).

    Raises:
        UserError: if there are no labels, or fewer than two classes.
    """

    primary: ClassVar[str] = "NMI"

    def __init__(self, modality: str | Iterable[str], starts: int = 10, combine: str = "product") -> None:
        self.modality, self.starts = as_names(modality), starts
        self.combine = check_combine(combine)
        if starts < 1:
            raise UserError(f"clustering starts {starts}: k-means must begin at least once")

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.modality

    def run(self, space: Any, data: Split) -> Report:
        from sklearn.cluster import KMeans

        items = labelled(space, data, self.modality, self.combine)
        item, several = items.pairs[:, 0].unique(return_counts=True)  # (N,), (N,)
        items = items.keep(items.pairs[torch.isin(items.pairs[:, 0], item[several == 1])])
        labels, truth = items.pairs[:, 1].unique(return_inverse=True)  # (C,), (N,)
        classes = len(labels)
        if classes < 2:
            raise UserError(
                f"clustering {self.about}: split {data.name!r} has {classes} class(es) of items with one "
                "label each; at least two are needed"
            )
        model = KMeans(classes, n_init=self.starts, random_state=0)
        clusters = torch.as_tensor(model.fit_predict(items.vectors.numpy())).long()  # (N,)
        table = contingency(clusters, truth, classes)  # (C, C)
        match = matching(table)  # (C,) the class of each cluster
        right = (match[clusters] == truth).double()  # (N,)
        cells = clusters * classes + truth  # (N,)
        low, high = interval(cells, lambda drawn: nmi(counted(drawn, classes)))
        found = nmi(table)
        return Report(
            {"NMI": float(found), "ARI": float(ari(table)), "accuracy": float(right.mean())},
            intervals={
                "NMI": (max(0.0, float(2 * found - high)), min(1.0, float(2 * found - low))),
                "ARI": interval(cells, lambda drawn: ari(counted(drawn, classes))),
                "accuracy": interval(right),
            },
            chance=chance(clusters, truth, classes),
            tables={"sizes": [{"items": len(items), "left_out": items.left_out, "classes": classes}]},
        )


def counted(cells: Tensor, classes: int) -> Tensor:
    """``(N,)`` cluster · C + class -> ``(C, C)`` float64: how often each cluster meets each class."""
    return cells.bincount(minlength=classes * classes).double().reshape(classes, classes)


def contingency(clusters: Tensor, truth: Tensor, classes: int) -> Tensor:
    return counted(clusters * classes + truth, classes)


def matching(table: Tensor) -> Tensor:
    """``(C, C)`` counts -> ``(C,)`` the class of each cluster, one-to-one, that leaves most items right."""
    from scipy.optimize import linear_sum_assignment

    return torch.as_tensor(linear_sum_assignment(table.numpy(), maximize=True)[1])


def nmi(table: Tensor) -> Tensor:
    """Mutual information over the mean of both entropies; 1 if both sides have but one part."""
    joint = table / table.sum()  # (C, C)
    entropies = entropy(joint.sum(0)) + entropy(joint.sum(1))  # ()
    if entropies == 0:
        return torch.ones_like(entropies)
    return (2 * (entropies - entropy(joint.flatten())) / entropies).clamp(0, 1)


def entropy(shares: Tensor) -> Tensor:
    """``-Σ p log p`` of ``(P,)`` shares."""
    return torch.special.entr(shares).sum()


def ari(table: Tensor) -> Tensor:
    """Pairs of items that both sides keep together, beyond those expected; 1 if there is no choice."""
    both, rows, columns = (choose_two(x) for x in (table, table.sum(1), table.sum(0)))  # () each
    expected = rows * columns / choose_two(table.sum()).clamp(min=1)  # ()
    most = (rows + columns) / 2  # ()
    return torch.ones_like(most) if most == expected else (both - expected) / (most - expected)


def choose_two(counts: Tensor) -> Tensor:
    return (counts * (counts - 1) / 2).sum()


def chance(clusters: Tensor, truth: Tensor, classes: int) -> dict[str, float]:
    """What clusters of these sizes give whose items are drawn at random."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(SHUFFLES):
        shuffled = truth[torch.randperm(len(truth), generator=generator)]  # (N,)
        table = contingency(clusters, shuffled, classes)  # (C, C)
        matched = table[torch.arange(classes), matching(table)].sum() / len(truth)  # ()
        found.append(torch.stack([nmi(table), matched]))
    information, accuracy = torch.stack(found).mean(0).tolist()
    return {"NMI": information, "ARI": 0.0, "accuracy": accuracy}
