"""Distinct samples of a dataset larger than memory are kept without their values."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign.training.data import Dataset
from modalign.training.data_plan import Data
from modalign.training.quarantine import Quarantine
from modalign.training.reader import Reader

PICTURES: list[Any] = [bytes([i % 100]) * (50_000 + i % 100) for i in range(200)]


def reader(folder: Path, **data: Any) -> Reader:
    space: Any = SimpleNamespace(reader=lambda name: None)
    dataset = Dataset(Data(**data), folder, ["picture"], [])
    return Reader(space, "picture", dataset, Quarantine(folder / "quarantine.csv"), seed=0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"picture": PICTURES}).save_to_disk(tmp_path / "large")
    pq.write_table(pa.table({"picture": PICTURES}), tmp_path / "large.parquet")
    return tmp_path


def test_values_are_read_when_they_are_asked_for(saved: Path) -> None:
    tracemalloc.start()
    found = reader(saved, dataset="large").distinct(range(200))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000
    wanted = reader(saved, table="large.parquet").distinct(range(200))
    assert [(c.key, c.size, c.value, row) for c, row in found] == [
        (c.key, c.size, c.value, row) for c, row in wanted
    ]
    assert len(found) == 100


def test_alternatives_and_paths(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.bin").write_bytes(b"abc")
    lists = datasets.Dataset.from_dict({"picture": [[b"1", b"22"], [b"333", b"1"]]})
    lists.save_to_disk(tmp_path / "lists")
    found = reader(tmp_path, dataset="lists").distinct(range(2))
    assert [(c.value, row) for c, row in found] == [(b"1", 0), (b"22", 0), (b"333", 1)]
    paths = datasets.Dataset.from_dict({"picture": ["a.bin"]})
    paths.save_to_disk(tmp_path / "paths")
    (only,) = reader(tmp_path, dataset={"name": "paths"}, root=".").distinct(range(1))
    assert isinstance(only[0].value, Path)
