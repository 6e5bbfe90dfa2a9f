"""What is missing, doubled or shared between splits in a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .data import Dataset

MOST_CELLS = 200_000
"""With more, only their number is told: telling doubles apart reads every cell."""


def health(dataset: Dataset, modalities: Iterable[str]) -> list[dict[str, Any]]:
    """One row per split and modality: rows, how many lack it, distinct samples, and how many are in train.

    A sample of the test split that is in train too may be a class's name, or a leak.
    """
    rows = []
    splits = dict(sorted(dataset.splits.items(), key=lambda pair: pair[0] != "train"))
    for modality in modalities:
        filled = np.concatenate([table.filled(modality) for table in dataset.tables])
        seen: set[bytes] = set()
        for split, numbers in splits.items():
            has = np.asarray(numbers)[filled[np.asarray(numbers)]].tolist()
            about: dict[str, Any] = {"modality": modality, "split": split, "rows": len(numbers)}
            about["missing"] = len(numbers) - len(has)
            if len(dataset) <= MOST_CELLS:
                keys = {cell.key for row in has for cell in dataset.cells(modality, row)}
                about |= {"distinct": len(keys), "also in train": len(keys & seen) if seen else None}
                seen = seen or keys
            rows.append(about)
    return rows
