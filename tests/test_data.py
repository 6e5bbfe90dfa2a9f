"""Tables, alternatives, mixtures and the order of rows."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import modalign
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modalign.space import Space, SpaceModality
from modalign.spec import Spec
from modalign.training.cells import Cell, filled
from modalign.training.data import Dataset
from modalign.training.data_plan import Data
from modalign.training.quarantine import Quarantine, TooManyBad
from modalign.training.reader import Reader
from modalign.training.sampler import Epochs
from modalign.training.seeds import choose, seed_of
from modalign.training.table_files import read_table


def dataset(folder: Path, rows: list[dict[str, Any]], name: str = "t.parquet", **data: Any) -> Dataset:
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return Dataset(Data(table=name, **data), folder, ["picture", "word"], ["word"])


def splits(data: Dataset) -> dict[str, list[int]]:
    return {name: [int(row) for row in rows] for name, rows in data.splits.items()}


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_every_format_gives_the_same_cells(name: str, tmp_path: Path) -> None:
    rows = [{"picture": "a.png", "word": "one", "n": 3}, {"picture": None, "word": "two", "n": None}]
    data = dataset(tmp_path, rows, name, label="n")
    assert [c.value for c in data.cells("picture", 0)] == [tmp_path / "a.png"]
    assert data.cells("picture", 1) == []
    assert [c.value for c in data.cells("word", 1)] == ["two"]
    assert data.labels.tolist() == [0, -1]
    assert splits(data) == {"train": [0, 1]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"bytes": b"x", "path": "p"}, [b"x"]),
        ({"bytes": None, "path": "p"}, ["FOLDER/p"]),
        ({"bytes": None, "path": None}, []),
        ([{"bytes": b"x", "path": None}, {"bytes": None, "path": None}], [b"x"]),
        ([[1.0, 2.0], [3.0, 4.0]], [[[1.0, 2.0], [3.0, 4.0]]]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([None, 140.0, 3.2], [[None, 140.0, 3.2]]),
        (["a", None, "b"], ["FOLDER/a", "FOLDER/b"]),
        ([], []),
        (b"raw", [b"raw"]),
        ({"sodium": 140.0, "potassium": None}, [{"sodium": 140.0, "potassium": None}]),
    ],
)
def test_what_a_cell_holds(value: Any, expected: list[Any], tmp_path: Path) -> None:
    data = dataset(tmp_path, [{"picture": value, "word": "w"}])
    wanted = [tmp_path / v[7:] if isinstance(v, str) else v for v in expected]
    assert [c.value for c in data.cells("picture", 0)] == wanted
    assert data.tables[0].filled("picture").tolist() == [bool(expected)]


def test_content_decides_the_key(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    data = dataset(tmp_path, [{"picture": "a", "word": "x"}, {"picture": "b", "word": "y"}])
    assert data.cells("picture", 0)[0].key == data.cells("picture", 1)[0].key
    assert data.cells("word", 0)[0].key != data.cells("word", 1)[0].key


def test_tables_by_split(tmp_path: Path) -> None:
    for name, n in (("train", 3), ("test", 2)):
        pq.write_table(pa.table({"word": [name] * n}), tmp_path / f"{name}.parquet")
    files = {"train": "train.parquet", "test": "test.parquet"}
    data = Dataset(Data(tables=files), tmp_path, ["word"], ["word"])
    assert splits(data) == {"train": [0, 1, 2], "test": [3, 4]}
    assert data.place(4) == (tmp_path / "test.parquet", 1)  # where a person would look
    assert data.cells("word", 4)[0].value == "test"


def test_splits_by_a_column_of_values(tmp_path: Path) -> None:
    rows = [{"word": w, "who": s} for w, s in zip("abcd", ["ada", "bob", "eve", None], strict=True)]
    data = dataset(tmp_path, rows, split={"column": "who", "test": ["bob"], "val": ["eve"]})
    assert splits(data) == {"train": [0, 3], "test": [1], "val": [2]}
    with pytest.raises(modalign.UserError, match="'whom'"):
        dataset(tmp_path, rows, split={"column": "whom", "test": ["bob"]})


def test_a_digest_follows_the_content(tmp_path: Path) -> None:
    one = dataset(tmp_path, [{"word": "a"}], "a.parquet").digest()
    same = dataset(tmp_path, [{"word": "a"}], "b.parquet").digest()
    other = dataset(tmp_path, [{"word": "b"}], "c.parquet").digest()
    assert one == same != other


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    batch=st.integers(1, 17),
    seed=st.integers(0, 99),
)
def test_unweighted_epochs_visit_every_row_once(sizes: list[int], batch: int, seed: int) -> None:
    starts = np.cumsum([0, *sizes])
    tables = [range(starts[i], starts[i + 1]) for i in range(len(sizes))]
    epochs = Epochs(tables, [None] * len(sizes), batch, seed)
    batches = list(epochs.from_batch(0))
    assert sorted(np.concatenate(batches)) == list(range(sum(sizes)))
    assert len(batches) == epochs.batches
    assert {len(b) for b in batches[:-1]} <= {batch}
    for first in range(epochs.batches):
        rest = list(epochs.from_batch(0, first))
        assert all(np.array_equal(a, b) for a, b in zip(rest, batches[first:], strict=True))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
)
def test_mixtures_keep_their_shares(sizes: list[int], weights: list[float]) -> None:
    starts = np.cumsum([0, *sizes])
    tables = [range(starts[i], starts[i + 1]) for i in range(len(sizes))]
    shares = weights[: len(sizes)]
    counts = Counter(Epochs(tables, shares, 8, 0).rows(3).tolist())
    assert sum(counts.values()) == sum(sizes)
    for table, share in zip(tables, shares, strict=True):
        drawn = [counts[row] for row in table]
        assert sum(drawn) == pytest.approx(share / sum(shares) * sum(sizes), abs=1)
        assert max(drawn) - min(drawn) <= 1


def test_epochs_differ_and_repeat_by_seed() -> None:
    epochs = Epochs([range(100)], [None], 10, 7, "stage")
    assert not np.array_equal(epochs.rows(0), epochs.rows(1))
    assert np.array_equal(epochs.rows(1), Epochs([range(100)], [None], 10, 7, "stage").rows(1))
    assert not np.array_equal(epochs.rows(1), Epochs([range(100)], [None], 10, 7, "other").rows(1))


def test_alternatives_are_drawn_evenly() -> None:
    drawn = Counter(
        choose(3, 0, "alternative", "text", row, epoch) for row in range(100) for epoch in range(30)
    )
    assert all(900 < n < 1100 for n in drawn.values())
    assert seed_of("a", 1) != seed_of("a1")


def test_unknown_column_names_those_there(tmp_path: Path) -> None:
    with pytest.raises(modalign.UserError, match=r"'pictur'.*'picture'"):
        dataset(tmp_path, [{"picture": "a", "word": "x"}], columns={"picture": "pictur"})


def test_a_damaged_table(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(modalign.UserError, match="not a readable"):
        Dataset(Data(table="t.parquet"), tmp_path, ["word"], ["word"])


def test_words_that_look_like_nothing_or_numbers_stay_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("word,picture\nnull,a\nNA,b\n7,\n,c\n")
    data = Dataset(Data(table="t.csv"), tmp_path, ["word", "picture"], ["word"])
    assert [[c.value for c in data.cells("word", i)] for i in range(4)] == [["null"], ["NA"], ["7"], []]
    assert data.tables[0].filled("picture").tolist() == [True, True, False, True]
    (tmp_path / "n.csv").write_text("title,name\n007,8\n,009\n")
    for stream in (False, True):
        either = Data(table="n.csv", columns={"word": "title;name"}, stream=stream)
        data = Dataset(either, tmp_path, ["word"], ["word"])
        assert [data.cells("word", i)[0].value for i in (0, 1)] == ["007", "009"]


@pytest.mark.parametrize("columns", [["word"], ["n", "word"]])
def test_texts_of_several_lines_however_many(columns: list[str], tmp_path: Path) -> None:
    """More than a parser takes at a time: it must not cut where a line of a text ends."""
    texts = [f'line one of {i}, "so"\nline two\r\n\nline four of {i}' for i in range(60_000)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([text] if len(columns) == 1 else [i, text] for i, text in enumerate(texts))
    assert (tmp_path / "t.csv").stat().st_size > 2_000_000
    assert read_table(tmp_path / "t.csv", ["word"])["word"].to_pylist() == texts


def test_a_line_may_be_long(tmp_path: Path) -> None:
    words = ["x" * 3_000_000, "y"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"word": word}) + "\n" for word in words))
    (tmp_path / "t.csv").write_text("word\n" + "\n".join(words) + "\n")
    for name in ("t.jsonl", "t.csv"):
        data = Dataset(Data(table=name), tmp_path, ["word"], ["word"])
        assert [data.cells("word", i)[0].value for i in (0, 1)] == words


def test_bad_samples_are_counted_over_a_table_that_is_there_twice(tmp_path: Path) -> None:
    pytest.importorskip("modalign_text")
    rows = [{"en": "a", "de": "b"}] * 30 + [{"en": "a", "de": None}] * 30
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    mix = [{"table": "t.parquet", "columns": {"word": c}} for c in ("en", "de")]
    data = Dataset(Data(mix=mix), tmp_path, ["word"], ["word"])
    space = Space(4, Spec("linear"))
    space.add(
        "word", SpaceModality(Spec("text"), Spec("char-cnn", {"width": 8}), 8, True), None, founder=True
    )
    reader = Reader(space, "word", data, Quarantine(), seed=0)
    for row in range(4):  # of 90 cells; 5 % are allowed
        reader._note(row, "broken")
    with pytest.raises(TooManyBad, match="5 of 90"):
        reader._note(4, "broken")


def test_paths_belong_to_their_own_table(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "t.csv").write_text(f"picture\n{split}.png\n")
    files = {"train": "train/t.csv", "test": "test/t.csv"}
    data = Dataset(Data(tables=files), tmp_path, ["picture"], [])
    assert [data.cells("picture", i)[0].value for i in (0, 1)] == [
        tmp_path / "train/train.png",
        tmp_path / "test/test.png",
    ]


def test_a_label_is_one_class_however_it_is_stored(tmp_path: Path) -> None:
    pq.write_table(pa.table({"word": ["a", "b"], "n": [2, 10]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"word": ["c", "d"], "n": [10.0, float("nan")]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"word": ["e"], "n": ["2"]}), tmp_path / "c.parquet")
    mix = [{"table": f"{name}.parquet"} for name in "abc"]
    data = Dataset(Data(mix=mix, label="n"), tmp_path, ["word"], ["word"])
    assert data.classes == ("2", "10")
    assert data.labels.tolist() == [0, 1, 1, -1, 0]


@given(
    a=st.lists(st.one_of(st.integers(-3, 3), st.floats(width=32), st.none()), max_size=3),
    b=st.lists(st.one_of(st.integers(-3, 3), st.floats(width=32), st.none()), max_size=3),
)
def test_keys_of_arrays_are_equal_where_their_numbers_are(a: list[Any], b: list[Any]) -> None:
    mixed = any(len({type(v) for v in x}) > 1 for x in (a, b))  # 1 beside 0.5 is 1.0
    same = json.dumps(a) == json.dumps(b)
    assert mixed or (Cell(a).key == Cell(b).key) == same
    assert Cell([a, a]).key != Cell(a).key


def test_keys_of_arrays_tell_shapes_and_kinds_apart() -> None:
    values = [
        [1, 2],
        [1.0, 2.0],
        [[1, 2]],
        [[1], [2]],
        [True, False],
        ["1", "2"],
        [[1], [2, 3]],
        [10**30],
        "[1, 2]",
    ]
    assert len({Cell(value).key for value in values}) == len(values)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.int64()), pa.list_(pa.float64(), 2)]
)
def test_a_column_of_arrays_is_filled_where_it_has_numbers(kind: pa.DataType) -> None:
    two = pa.types.is_fixed_size_list(kind)
    values = [[1, 2], None, [3, 4]] if two else [[1, 2], None, [], [3]]
    whole = pa.chunked_array([pa.array(values, kind), pa.array(values[:1], kind)])
    assert filled(whole, False).tolist() == [bool(v) for v in values] + [True]
    holes = pa.array([[None, None], [1, None]], kind)
    assert filled(holes, False).tolist() == [False, True]
