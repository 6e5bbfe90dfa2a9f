"""A small table of pictures in files, words and sounds, and a plan of two stages on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..conftest import TINY, digit_rows

ROWS = 60
STAGE = {"losses": {"infonce": 1.0}, "epochs": 3, "batch_size": 16, "lr": 3e-3}
STEPS = 9
"""Of each stage: 48 rows of training in three batches, three times."""

PLAN: dict[str, Any] = {
    "name": "tiny",
    "data": {"split": "split", "label": "label"},
    "modalities": {**TINY, "image": {**TINY["image"], "augment": True}},
    "space": {
        "dim": 16,
        "projection": {"name": "universal", "width": 16, "heads": 2, "hidden": 32, "dropout": 0.2},
    },
    "stages": [
        {
            "name": "image-text",
            "align": ["image", "text"],
            **STAGE,
            "select": {"task": "retrieval:image->text", "every": 3},
        },
        {"name": "add-audio", "align": ["audio", "text"], **STAGE},
    ],
    "tasks": [
        {"name": "retrieval", "from": "image", "to": "text"},
        {"name": "retrieval", "from": "audio", "to": "image"},
    ],
    "checkpoint": {"every_steps": 2, "keep": 3},
    "track": {"uri": None},
    "fabric": {"accelerator": "cpu"},
}


def write_data(folder: Path) -> None:
    """``pairs.parquet`` and the files it points to."""
    (folder / "pictures").mkdir(parents=True)
    rows = digit_rows(ROWS)
    for i, row in enumerate(rows):
        (folder / "pictures" / f"{i}.png").write_bytes(row["image"]["bytes"])
        row["image"] = f"pictures/{i}.png"
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
