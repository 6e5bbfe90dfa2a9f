"""Linear probe: how well a linear classifier on frozen embeddings names an item's class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.combine import check_combine
from modalign.contracts import Report, Split, Task

from .joint import as_names
from .labelled import Labelled
from .probe import probe, settings


class LinearProbe(Task):
    """Logistic regression (L-BFGS, L2) from unit embeddings to classes, learnt and judged on two splits.

    The protocol of Radford et al., arXiv 2103.00020, §A.3: the inverse strength of the
    regularisation, ``C``, is the one most accurate on the split ``val``, or in 5-fold
    cross-validation of ``train`` where there is no ``val`` (or it is measured itself). Prefer it to
    ``knn_probe`` to learn what the embeddings hold; to that one for how they lie.

    ``accuracy``; ``balanced_accuracy``, the mean over classes of the accuracy within each. An item
    with several classes is learnt as each of them, and right if any is predicted.

    Inputs:
        modality: what is classified; or several: each row that has all of them is.
        C: one value, or several to choose from.
        train, val: the splits to learn from and to choose ``C`` on.
        combine: what several modalities are as one: their "product" (Symile) or "sum" (InfoNCE).

    Raises:
        UserError: if there are no labels, ``train`` has fewer than two classes or is measured itself.
    """

    primary: ClassVar[str] = "accuracy"

    def __init__(
        self,
        modality: str | Iterable[str],
        C: float | Iterable[float] = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),
        train: str = "train",
        val: str = "val",
        combine: str = "product",
    ) -> None:
        self.modality, self.combine = as_names(modality), check_combine(combine)
        self.C = settings("linear_probe C", C)
        self.train, self.val = train, val

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.modality

    def run(self, space: Any, data: Split) -> Report:
        choices = ("C", self.C)
        return probe(space, data, self.modality, self.combine, predict, choices, self.train, self.val)


def predict(known: Labelled, vectors: Tensor, values: Sequence[float]) -> list[Tensor]:
    """The ``(Q,)`` classes that a logistic regression with each ``C`` gives to ``(Q, D)`` vectors."""
    return [logistic(known, vectors, C) for C in values]


def logistic(known: Labelled, vectors: Tensor, C: float, weights: Tensor | None = None) -> Tensor:
    """The ``(Q,)`` classes that a logistic regression gives; the class itself if there is but one.

    Inputs:
        vectors: ``(Q, D)``.
        weights: ``(M,)`` of the learnt pairs; default: 1.
    """
    from sklearn.linear_model import LogisticRegression

    item, label = known.pairs.unbind(1)  # (M,), (M,)
    if len(known.labels) == 1:
        return known.labels.expand(len(vectors))
    model = LogisticRegression(C=C, max_iter=1000)
    with warnings.catch_warnings():  # one shot per class is no regression problem
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        model.fit(known.vectors[item].numpy(), label.numpy(), None if weights is None else weights.numpy())
    return torch.as_tensor(model.predict(vectors.numpy()))  # (Q,)
