"""Splits whose items and labels are given, for tests of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from modalign.contracts import Items
from modalign.errors import UserError
from torch.nn.functional import normalize


@dataclass
class Table:
    """A split whose items are given; ``others`` are the splits of the same data by name."""

    items: dict
    rows: int
    labels: torch.Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = "test"
    others: dict = field(default_factory=dict)
    columns: dict = field(default_factory=dict)
    """Other labels and class names, by column."""

    def by(self, column):
        labels, classes = self.columns[column]
        return replace(self, labels=labels, classes=classes)

    def embed(self, space, modality):
        return self.items[modality]

    def other(self, name):
        if name not in self.others:
            raise UserError(f"the data have no split {name!r}")
        return self.others[name]


def items(vectors, links):
    vectors = torch.as_tensor(np.asarray(vectors), dtype=torch.float32)
    return Items(vectors, torch.tensor(links, dtype=torch.long).reshape(-1, 2))


def diagonal(vectors):
    return items(vectors, [[i, i] for i in range(len(vectors))])


def rows_of(name, labels, **vectors):
    """A split with one item per row in every modality, row ``i`` of class ``labels[i]``."""
    labels = torch.as_tensor(np.asarray(labels))
    names = tuple(f"class {c}" for c in range(int(labels.max()) + 1)) if len(labels) else ()
    return Table({m: diagonal(v) for m, v in vectors.items()}, len(labels), labels, names, name)


def cloud(rng, labels, d=8, spread=1.0, centres=0):
    """``(N, d)`` unit rows around a centre per class; the centres are the same in all splits."""
    middle = np.random.default_rng(centres).normal(size=(16, d))
    vectors = middle[np.maximum(labels, 0)] + spread * rng.normal(size=(len(labels), d))
    return normalize(torch.tensor(vectors, dtype=torch.float32), dim=1)


def digits(seed=0, train=60, test=40, val=0, classes=4, spread=1.0, modalities=("picture",)):
    """A test split of random classes, that knows its train split and, if ``val``, a validation split."""
    rng = np.random.default_rng(seed)
    splits = {}
    for name, size in (("train", train), ("val", val), ("test", test)):
        if size:
            labels = np.concatenate([np.arange(classes), rng.integers(0, classes, size - classes)])
            splits[name] = rows_of(name, labels, **{m: cloud(rng, labels, spread=spread) for m in modalities})
    for split in splits.values():
        split.others = splits
    return splits["test"]
