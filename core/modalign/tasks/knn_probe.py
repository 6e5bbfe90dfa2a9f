"""Nearest-neighbour probe: how often an item's neighbours are of its class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.combine import check_combine
from modalign.contracts import Report, Split, Task
from modalign.errors import UserError

from .joint import as_names
from .labelled import Labelled
from .probe import probe, settings

BLOCK = 4096
"""Items asked at once."""


class KnnProbe(Task):
    """The commonest class among the ``k`` nearest items of another split; nothing is trained.

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    with equal votes: of classes with equal votes the first wins. ``k`` is the one most accurate on
    the split ``val``, or in 5-fold cross-validation of ``train`` where there is no ``val`` (or it is
    measured itself). Prefer it to ``linear_probe`` to learn how the embeddings lie.

    ``accuracy``; ``balanced_accuracy``, the mean over classes of the accuracy within each. An item
    with several classes votes for each of them, and is right if any is predicted.

    Inputs:
        modality: what is classified; or several: each row that has all of them is.
        k: one value, or several to choose from; more than there are items means all of them.
        train, val: the splits whose items vote and on which ``k`` is chosen.
        combine: what several modalities are as one: their "product" (Symile) or "sum" (InfoNCE).

    Raises:
        UserError: if there are no labels, ``train`` has fewer than two classes or is measured itself.
    """

    primary: ClassVar[str] = "accuracy"

    def __init__(
        self,
        modality: str | Iterable[str],
        k: int | Iterable[int] = (1, 5, 10, 20, 50),
        train: str = "train",
        val: str = "val",
        combine: str = "product",
    ) -> None:
        self.modality, self.combine = as_names(modality), check_combine(combine)
        self.k = settings("knn_probe k", k)
        if not all(isinstance(each, int) for each in self.k):
            raise UserError(f"knn_probe k {list(self.k)}: neighbours are counted in whole numbers")
        self.train, self.val = train, val

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.modality

    def run(self, space: Any, data: Split) -> Report:
        choices = ("k", self.k)
        return probe(space, data, self.modality, self.combine, predict, choices, self.train, self.val)


def predict(known: Labelled, vectors: Tensor, values: Sequence[int]) -> list[Tensor]:
    """The ``(Q,)`` commonest classes among the nearest ``k`` of each ``k``; one search serves all."""
    from sklearn.neighbors import NearestNeighbors

    item, label = known.pairs.unbind(1)  # (M,), (M,)
    labels, place = label.unique(return_inverse=True)  # (C,), (M,)
    most = min(max(values), len(item))
    search = NearestNeighbors(n_neighbors=most, algorithm="brute").fit(known.vectors[item].numpy())
    found: list[list[Tensor]] = [[] for _ in values]
    for some in vectors.split(BLOCK):
        near = place[torch.as_tensor(search.kneighbors(some.numpy(), return_distance=False))]  # (q, most)
        for k, predicted in zip(values, found, strict=True):
            votes = torch.zeros(len(some), len(labels))  # (q, C)
            votes.scatter_add_(1, near[:, :k], torch.ones(near[:, :k].shape))
            predicted.append(labels[votes.argmax(1)])
    return [torch.cat(parts) for parts in found]
