"""What is missing, doubled, shared between splits or slow to read in a dataset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from modalign.contracts import BadSample, Modality

from .data import Dataset

MOST_CELLS = 200_000
"""With more, only their number is told: telling doubles apart reads every cell."""
TIMED = 16
"""Samples that are read to tell what reading one costs."""


def health(
    dataset: Dataset, modalities: Iterable[str], reader: Callable[[str], Modality] | None = None
) -> list[dict[str, Any]]:
    """One row per split and modality: rows, how many lack it, distinct samples, and how many are in train.

    A sample of the test split that is in train too may be a class's name, or a leak. A row is unpaired if
    it holds nothing else.

    Inputs:
        reader: of a modality; with it each row says what reading a sample takes, which no two times is equal.
    """
    found = []
    splits = dict(sorted(dataset.splits.items(), key=lambda pair: pair[0] != "train"))
    filled = {m: np.concatenate([table.filled(m) for table in dataset.tables]) for m in modalities}
    held = np.sum([has.astype(np.int16) for has in filled.values()], axis=0)
    for modality, has in filled.items():
        seen: set[bytes] = set()
        for split, numbers in splits.items():
            rows = np.asarray(numbers)[has[np.asarray(numbers)]]
            about: dict[str, Any] = {"modality": modality, "split": split, "rows": len(numbers)}
            about |= {"missing": len(numbers) - len(rows), "unpaired": int((held[rows] < 2).sum())}
            if len(dataset) <= MOST_CELLS:
                keys = {cell.key for row in rows.tolist() for cell in dataset.cells(modality, row)}
                about |= {"distinct": len(keys), "also in train": len(keys & seen) if seen else None}
                seen = seen or keys
            if reader is not None:
                about["ms to read"] = read_cost(dataset, modality, rows, reader(modality))
            found.append(about)
    return found


def read_cost(dataset: Dataset, modality: str, rows: np.ndarray, reader: Modality) -> float | None:
    """Milliseconds that reading one sample takes, over a few of them; None if there are none."""
    few = rows[np.linspace(0, len(rows) - 1, min(TIMED, len(rows)), dtype=int)].tolist()
    values = [cell.value for row in few for cell in dataset.cells(modality, row)[:1]]
    started = time.perf_counter()
    for value in values:
        try:
            reader.read(value)
        except BadSample:
            continue
    return round(1000 * (time.perf_counter() - started) / len(values), 3) if values else None
