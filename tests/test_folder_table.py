"""Folders of files and datasets of the Hugging Face library are tables too."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign import UserError
from modalign.training.build import absolute_paths
from modalign.training.data import Dataset
from modalign.training.data_plan import Data

COLUMNS = {"picture": "jpg;png", "word": "txt"}


def opened(folder: Path, **data: Any) -> Dataset:
    return Dataset(Data(**data), folder, ["picture", "word"], ["word"])


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "cat/2.JPG", "dog/1.png", ".hidden/9.png", "dog/.3.png"):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "pets/cat/1.txt").write_text("a cat\n")
    (tmp_path / "pets/dog/2.txt").write_text("eine Dögge", encoding="utf-8")
    return tmp_path / "pets"


def test_a_folder_is_a_table(pets: Path) -> None:
    data = opened(pets.parent, table="pets", columns=COLUMNS, label="folder")
    pictures = [[c.value for c in data.cells("picture", row)] for row in range(len(data))]
    assert pictures == [[pets / "cat/1.png"], [pets / "cat/2.JPG"], [pets / "dog/1.png"], []]
    words = [[c.value for c in data.cells("word", row)] for row in range(len(data))]
    assert words == [["a cat"], [], [], ["eine Dögge"]]
    assert [data.classes[c] for c in data.labels] == ["cat", "cat", "dog", "dog"]
    assert [int(row) for row in data.usable("train", ["picture", "word"], 2)[0]] == [0]
    before = data.digest()
    (pets / "dog/1.txt").write_text("a dog")
    assert opened(pets.parent, table="pets", columns=COLUMNS).digest() != before


def test_folders_by_split_and_by_name(pets: Path) -> None:
    data = opened(pets.parent, tables={"train": "pets/cat", "test": "pets/dog"}, columns=COLUMNS)
    assert data.splits["test"].tolist() == [2, 3]
    by = opened(pets.parent, table="pets", columns=COLUMNS, split={"column": "folder", "test": ["dog"]})
    assert by.splits["test"].tolist() == [2, 3]


def test_class_folders_are_texts(pets: Path) -> None:
    data = opened(pets.parent, table="pets", columns={"picture": "png;jpg", "word": "folder"})
    assert [data.cells("word", row)[0].value for row in range(4)] == ["cat", "cat", "dog", "dog"]


def test_a_folder_that_is_none(pets: Path) -> None:
    (pets / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no files such as 1\.png"):
        opened(pets, table="empty")
    with pytest.raises(UserError, match="the whole disk"):
        opened(pets, table="/")
    with pytest.raises(UserError, match=r"no column 'gif'.*it has: folder, jpg, png, txt"):
        opened(pets.parent, table="pets", columns={"picture": "gif"})
    (pets / "cat/3.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"3\.txt: not a readable UTF-8 text"):
        opened(pets.parent, table="pets", columns=COLUMNS)


ROWS = {"picture": [b"p0", b"p1", None], "word": ["zero", None, "two"], "kind": [0, 1, 1]}


def test_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    plain = datasets.Dataset.from_dict(ROWS)
    both = datasets.DatasetDict({"train": plain, "test": plain.select([2, 0])})
    both.save_to_disk(tmp_path / "saved")
    plain.save_to_disk(tmp_path / "one")
    data = opened(tmp_path, dataset="saved", label="kind")
    assert {s: list(map(int, rows)) for s, rows in data.splits.items()} == {
        "train": [0, 1, 2],
        "test": [3, 4],
    }
    assert [[c.value for c in data.cells("word", row)] for row in range(5)] == [
        ["zero"],
        [],
        ["two"],
        ["two"],
        ["zero"],
    ]
    assert data.cells("picture", 4)[0].value == b"p0"
    assert data.labels.tolist() == [0, 1, 1, 1, 0]
    assert len(opened(tmp_path, dataset={"name": "one"})) == 3
    assert data.place(4) == (Path("saved-test"), 1)


def test_what_is_mapped_from_disk_is_not_kept(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"picture": [bytes([i]) * 100_000 for i in range(200)]})
    made.save_to_disk(tmp_path / "large")
    data = opened(tmp_path, dataset="large")
    tracemalloc.start()
    assert sum(len(data.cells("picture", row)[0].value) for row in range(200)) == 20_000_000
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2_000_000
    (tmp_path / "a.bin").write_bytes(b"x")
    paths = datasets.Dataset.from_dict({"picture": [str(tmp_path / "a.bin")]})
    paths.save_to_disk(tmp_path / "paths")
    data = opened(tmp_path, dataset="paths")
    assert data.cells("picture", 0)[0] is data.cells("picture", 0)[0]  # whose file is read once for its key


def test_data_files_and_features_that_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    pq.write_table(pa.table({"word": ["a", "b"]}), tmp_path / "w.parquet")
    about = {"name": "parquet", "files": {"val": str(tmp_path / "w.parquet")}}
    assert list(opened(tmp_path, dataset=about).splits) == ["val"]
    monkeypatch.setenv("HERE", str(tmp_path))
    for file in ("w.parquet", "w*.parquet", "${HERE}/w.parquet", ["w.parquet"]):  # beside the plan
        about = {"name": "parquet", "files": file}
        assert len(opened(tmp_path, dataset=about)) == 2
    resolved = absolute_paths({"data": {"dataset": about}}, tmp_path)
    assert resolved["data"]["dataset"]["files"] == [str(tmp_path / "w.parquet")]
    (tmp_path / "own").mkdir()
    pq.write_table(pa.table({"word": ["c"]}), tmp_path / "own/w.parquet")
    about = {"name": "own", "files": "w.parquet"}  # its own, not the one beside it
    assert len(opened(tmp_path, dataset=about)) == 1
    for name in ("own", "someone/something"):
        resolved = absolute_paths({"data": {"dataset": {"name": name, "files": "w.parquet"}}}, tmp_path)
        assert resolved["data"]["dataset"]["files"] == "w.parquet"
    (tmp_path / "pics/cat").mkdir(parents=True)
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "pics/cat/1.png")
    made = datasets.Dataset.from_dict({"picture": [str(tmp_path / "pics/cat/1.png")]})
    made.cast_column("picture", datasets.Image()).save_to_disk(tmp_path / "pictures")
    cells = opened(tmp_path, dataset="pictures").cells("picture", 0)
    assert cells[0].value == (tmp_path / "pics/cat/1.png").read_bytes()  # encoded: the modality decodes


def test_datasets_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="the dataset folder could not be loaded"):
        opened(tmp_path, dataset="folder")


def test_a_resolved_plan_finds_its_dataset_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    plan = {"data": {"dataset": {"name": "saved"}, "table": None}, "stages": [{"data": {"table": "a-*.tar"}}]}
    found = absolute_paths(plan, tmp_path)
    assert found["data"]["dataset"]["name"] == str(tmp_path / "saved")
    assert found["stages"][0]["data"]["table"] == str(tmp_path / "a-*.tar")
    hub = {"data": {"dataset": {"name": "someone/something"}}}
    assert absolute_paths(hub, tmp_path) == hub
