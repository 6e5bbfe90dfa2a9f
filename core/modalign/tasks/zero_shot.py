"""Zero-shot: name an item's class by the nearest description."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modalign.combine import check_combine
from modalign.contracts import Items, Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .confusion import MOST, confusion, figure, worst
from .joint import as_names, items_of, joint_items
from .ranking import best_ranks, join
from .retrieval import item_labels


class ZeroShot(Task):
    """Classify ``modality`` by the nearest class prototype, never having seen a label in training.

    With labels, a class's prototype is the normalised mean of the distinct ``classes`` items in its
    rows, or of its name in every template (Radford et al., arXiv 2103.00020, §3.1.4). Without
    labels every distinct ``classes`` item is a class. An item with several classes counts as right
    if any of them is nearest; a tie with a wrong class counts as wrong. Items with no class that
    has a prototype are left out.

    ``accuracy``; ``top5`` if there are more than 5 classes; ``balanced_accuracy``, the mean over
    classes of the accuracy within each; ``chance``.

    Inputs:
        modality: what is classified; or several: each row that has all of them is.
        classes: the modality that describes the classes, such as ``text``.
        templates: sentences with a ``{}`` for the class's name, such as ``["a photo of a {}"]``.
        combine: what several modalities are as one: their "product" (Symile) or "sum" (InfoNCE).

    Raises:
        UserError: if a template has no ``{}``, the split lacks items, or templates lack labels.
    """

    primary: ClassVar[str] = "accuracy"

    def __init__(
        self,
        modality: str | Iterable[str],
        classes: str,
        templates: Iterable[str] | None = None,
        combine: str = "product",
    ) -> None:
        self.modality, self.classes = as_names(modality), classes
        self.combine = check_combine(combine)
        if templates is not None:
            templates = (templates,) if isinstance(templates, str) else tuple(templates)
            wrong = [t for t in templates if "{}" not in t]
            if wrong or not templates:
                raise UserError(f"zero_shot templates {wrong}: write {{}} where the class's name goes")
        self.templates = templates
        if classes in self.modality:
            raise UserError(f"zero_shot of {self.about} by {classes}: name two modalities")

    @property
    def modalities(self) -> tuple[str, ...]:
        return (*self.modality, self.classes)

    @property
    def about(self) -> str:
        return "+".join(self.modality)

    def run(self, space: Any, data: Split) -> Report:
        items = joint_items(space, data, self.modality, self.combine)
        prototypes, answers, names = self.prototypes(space, data, items)
        if not len(answers):
            raise UserError(
                f"zero_shot:{self.about}: no {self.about} of split {data.name!r} belongs to a class "
                f"that {self.classes} describes; check the label column, or name another split"
            )
        vectors = items.vectors
        ranks = best_ranks(vectors, prototypes.to(vectors), answers.to(vectors.device)).cpu()  # (K,)
        answers = answers.cpu()
        known = ranks[~ranks.isnan()]  # (Q,)
        right = (ranks <= 1).double()  # (K,)
        counts = torch.zeros(len(names), dtype=torch.float64).index_add(
            0, answers[:, 1], torch.ones(len(answers), dtype=torch.float64)
        )  # (C,)
        hits = torch.zeros_like(counts).index_add(0, answers[:, 1], right[answers[:, 0]])  # (C,)
        seen = counts > 0  # (C,)
        metrics = {"accuracy": float((known <= 1).double().mean())}
        if len(names) > 5:
            metrics["top5"] = float((known <= 5).double().mean())
        metrics["balanced_accuracy"] = float((hits[seen] / counts[seen]).mean())
        metrics["chance"] = len(answers) / len(known) / len(names)
        sizes = {"items": len(known), "left_out": len(items) - len(known), "classes": len(names)}
        report = Report(metrics, tables={"sizes": [sizes]})
        for name, k in (("accuracy", 1), ("top5", 5)):
            if name in metrics:
                report.intervals[name] = interval((known <= k).double())
        report.chance["accuracy"] = metrics["chance"]
        if data.labels is not None:
            report.tables["classes"] = per_class(names, counts, hits)
            taken = confusion(vectors, prototypes, answers)
            report.tables["confusions"] = worst(taken, names)
            if len(names) <= MOST:
                report.figures["confusion"] = figure(taken, names)
        return report

    def prototypes(self, space: Any, data: Split, items: Items) -> tuple[Tensor, Tensor, list[str]]:
        """``(C, D)`` unit rows, ``(L, 2)`` item, class that is right for it, and the classes' names."""
        if self.templates:
            return self.from_templates(space, data, items)
        described = items_of(space, data, self.classes)
        if data.labels is None:
            answers = join(items.links, described.links)  # (L, 2)
            return described.vectors, answers, [str(i) for i in range(len(described))]
        by_label = item_labels(described, data.labels)  # (M, 2) item, label
        labels, place = by_label[:, 1].unique(return_inverse=True)  # (C,), (M,)
        vectors = described.vectors.float()  # (K', D)
        place, chosen = place.to(vectors.device), by_label[:, 0].to(vectors.device)  # (M,), (M,)
        sums = vectors.new_zeros(len(labels), vectors.shape[1]).index_add(0, place, vectors[chosen])
        answers = answers_among(labels, items, data.labels)  # (L, 2)
        return normalize(sums, dim=1), answers, [class_name(data, int(i)) for i in labels]

    def from_templates(self, space: Any, data: Split, items: Items) -> tuple[Tensor, Tensor, list[str]]:
        """As ``prototypes``: every class's name in every template, embedded now and averaged."""
        if data.labels is None or not data.classes:
            raise UserError("zero_shot templates need the classes' names: add `label` to the plan's data")
        assert self.templates is not None
        texts = [t.replace("{}", name) for name in data.classes for t in self.templates]
        vectors = space.embed(self.classes, texts)  # (C · templates, D)
        means = vectors.reshape(len(data.classes), len(self.templates), -1).mean(1)  # (C, D)
        labels = torch.arange(len(data.classes))  # (C,)
        return normalize(means, dim=1), answers_among(labels, items, data.labels), list(data.classes)


def answers_among(labels: Tensor, items: Items, of_row: Tensor) -> Tensor:
    """``(L, 2)`` item, position in ``labels (C,)`` of a label it has; labels not listed are dropped."""
    where = torch.stack([torch.arange(len(labels)), labels.cpu()], 1)  # (C, 2)
    return join(item_labels(items, of_row).cpu(), where)


def class_name(data: Split, label: int) -> str:
    return data.classes[label] if label < len(data.classes) else str(label)


def per_class(names: list[str], counts: Tensor, hits: Tensor) -> list[dict[str, Any]]:
    """One row per class: how many items it has, and the share of them that is right."""
    return [
        {"class": name, "items": int(n), "accuracy": float(h / n) if n else None}
        for name, n, h in zip(names, counts, hits, strict=True)
    ]
