"""Picks what a report shows of the data: answers to a few queries, and a map of the space."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor

from modalign.contracts import BadSample, Modality
from modalign.report import Answer, Example, Gallery, Shown
from modalign.space import Space
from modalign.tasks import Retrieval
from modalign.tasks.ranking import join

from .evaluate import Measured, TableSplit

log = logging.getLogger("modalign")

QUERIES, ANSWERS, POINTS = 5, 5, 300
MOST_BYTES = 400_000
"""An item that takes more is shown by its class alone."""


def make_gallery(space: Space, measured: Mapping[str, Measured]) -> Gallery:
    """Examples of every retrieval between two modalities, and all modalities of the first task's split."""
    gallery = Gallery()
    for name, (task, split) in ((name, (m.task, m.split)) for name, m in measured.items()):
        if isinstance(task, Retrieval) and len(task.from_) == 1:
            try:
                shown = examples(space, split, task.from_[0], task.to)
            except Exception as error:  # a report must not cost the run
                log.warning("report: no examples of %s: %s", name, error)
                continue
            if shown:
                gallery.examples[name] = shown
    if measured:
        split = next(iter(measured.values())).split
        alike = [
            m for m in measured.values() if (m.split.dataset, m.split.name) == (split.dataset, split.name)
        ]
        wanted = {name for m in alike for name in m.task.modalities}
        gallery.points = points(space, split, [m for m in space.modalities if m in wanted])
    return gallery


def examples(space: Space, split: TableSplit, query: str, candidate: str) -> list[Example]:
    """A few queries, evenly over the split, with their nearest candidates."""
    asked, offered = split.embed(space, query), split.embed(space, candidate)
    if not len(asked) or not len(offered):
        return []
    right = set(map(tuple, join(asked.links.cpu(), offered.links.cpu()).tolist()))
    labels = [item_labels(split, items.links) for items in (asked, offered)]
    answered = sorted({i for i, _ in right})
    step = max(1, len(answered) // QUERIES)
    found = []
    for i in islice(answered[::step], QUERIES):
        scores = offered.vectors @ asked.vectors[i]
        nearest = scores.topk(min(ANSWERS, len(scores))).indices.tolist()
        answers = [
            Answer(show(split, candidate, j, labels[1]), (i, j) in right or same(labels, i, j))
            for j in nearest
        ]
        found.append(Example(show(split, query, i, labels[0]), answers))
    return found


def same(labels: list[dict[int, str]], query: int, candidate: int) -> bool:
    """Whether both have a class, and the same one."""
    return query in labels[0] and labels[0][query] == labels[1].get(candidate)


def item_labels(split: TableSplit, links: Tensor) -> dict[int, str]:
    """The class of each item that has one."""
    of_row = split.labels
    if of_row is None:
        return {}
    found: dict[int, str] = {}
    for item, row in links.tolist():
        if of_row[row] >= 0:
            found.setdefault(item, split.classes[int(of_row[row])])
    return found


def show(split: TableSplit, modality: str, item: int, labels: Mapping[int, str]) -> Shown:
    """An item as the modality previews it; else its class, or its number."""
    label = labels.get(item, "")
    reader = split.reader(modality)
    cell, row = split.cell(modality, item)
    preview = preview_of(reader.modality, reader.read(cell, row))
    if preview is not None and len(preview[1]) <= MOST_BYTES:
        return Shown(*preview, label)
    return Shown("text/plain", (label or f"{modality} {item}").encode())


def preview_of(modality: Modality, item: object) -> tuple[str, bytes] | None:
    """What the modality makes of an item; None if it has no picture of it."""
    try:
        return None if item is None else modality.preview(item)
    except BadSample:
        return None


def points(
    space: Space, split: TableSplit, modalities: Iterable[str]
) -> dict[str, list[tuple[float, float, str]]]:
    """Up to ``POINTS`` items of each modality along the two principal directions of all of them."""
    vectors, labels = {}, {}
    for name in modalities:
        items = split.embed(space, name)
        step = max(1, -(-len(items) // POINTS))
        if len(items):
            vectors[name] = items.vectors[::step].float().cpu()
            known = item_labels(split, items.links)
            labels[name] = [known.get(i, "") for i in range(0, len(items), step)]
    if sum(map(len, vectors.values())) < 3:
        return {}
    whole = torch.cat(list(vectors.values()))
    directions = torch.linalg.svd(whole - whole.mean(0), full_matrices=False)[2][:2]  # (2, D)
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()  # the same every time
    return {
        name: [
            (float(x), float(y), label)
            for (x, y), label in zip((v - whole.mean(0)) @ (directions * signs).T, labels[name], strict=True)
        ]
        for name, v in vectors.items()
    }
