"""A stage that waits for its data says so, and says what helps; data are looked at before they are blamed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign.training import waiting
from modalign.training.data import Dataset
from modalign.training.data_plan import Data
from modalign.training.health import health
from modalign.training.waiting import Waiting


@pytest.mark.parametrize(
    ("waited", "workers", "raw", "words"),
    [
        (
            6.0,
            0,
            ["image"],
            "60% of its time it waited for data (6 s): image are decoded in every epoch; write workers: 2",
        ),
        (6.0, 4, ["image", "audio"], "make image, audio cheaper to read"),
        (6.0, 0, [], "MODALIGN_CACHE"),
        (2.0, 0, ["image"], None),
    ],
)
def test_advice(
    waited: float, workers: int, raw: list[str], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting.os, "cpu_count", lambda: 4)
    found = Waiting()
    for _ in range(10):
        found.note({"data_seconds": waited / 10, "samples_per_second": 32.0}, 32)
    advice = found.advice(workers, raw)
    assert (advice is None) if words is None else words in str(advice)


def test_a_short_wait_is_not_worth_a_word() -> None:
    found = Waiting()
    found.note({"data_seconds": 3.0, "samples_per_second": 8.0}, 32)
    assert found.advice(0, ["image"]) is None


def test_health(tmp_path: Path) -> None:
    from modalign_text.modality import Text

    rows = {
        "text": ["a", "b", None, "a", "c"],
        "other": ["x", None, "y", "z", "x"],
        "split": ["train", "train", "train", "test", "test"],
    }
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    for table in ("t.parquet", "t.par*"):
        data = Dataset(Data(table=table, split="split"), tmp_path, ["text", "other"], ["text", "other"])
        found = health(data, ["text", "other"], lambda _: Text())
        assert all(row.pop("ms to read") >= 0 for row in found)
        assert found == [
            {
                "modality": "text",
                "split": "train",
                "rows": 3,
                "missing": 1,
                "unpaired": 1,
                "distinct": 2,
                "also in train": None,
            },
            {
                "modality": "text",
                "split": "test",
                "rows": 2,
                "missing": 0,
                "unpaired": 0,
                "distinct": 2,
                "also in train": 1,
            },
            {
                "modality": "other",
                "split": "train",
                "rows": 3,
                "missing": 1,
                "unpaired": 1,
                "distinct": 2,
                "also in train": None,
            },
            {
                "modality": "other",
                "split": "test",
                "rows": 2,
                "missing": 0,
                "unpaired": 0,
                "distinct": 2,
                "also in train": 1,
            },
        ]
