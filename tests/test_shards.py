"""Shards hold what the same rows in one table hold, whatever their form."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign.training.data import Dataset
from modalign.training.data_plan import Data
from modalign.training.sampler import Epochs
from modalign.training.shards.files import is_shards, shard_files, unfold
from modalign.training.shards.streamed_table import StreamedTable

Row = dict[str, Any]


def rows(n: int) -> list[Row]:
    made = [
        {"picture": f"p{i}".encode() * (i % 5 + 1), "word": f"w {i}", "label": f"k{i % 3}"} for i in range(n)
    ]
    for i, row in enumerate(made):
        if i % 4 == 1:
            row["picture"] = None
        if i % 7 == 3:
            row["word"] = None
    return made


def write_parquet(path: Path, part: list[Row]) -> None:
    schema = pa.schema([("picture", pa.binary()), ("word", pa.string()), ("label", pa.string())])
    pq.write_table(pa.Table.from_pylist(part, schema=schema), path, row_group_size=4)


def write_tar(path: Path, samples: list[dict[str, bytes]], first: int = 0) -> None:
    with tarfile.open(path, "w") as archive:
        for i, sample in enumerate(samples, first):
            for ending, data in sample.items():
                about = tarfile.TarInfo(f"some/{i:05d}.{ending}")
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))


def in_tar(part: list[Row]) -> list[dict[str, bytes]]:
    """As WebDataset would have it: the file of what is missing is missing."""
    samples = []
    for row in part:
        sample = {"cls": row["label"].encode(), "json": json.dumps({"note": {"word": row["word"]}}).encode()}
        if row["picture"] is not None:
            sample["png"] = row["picture"]
        if row["word"] is not None:
            sample["txt"] = row["word"].encode()
        samples.append(sample)
    return samples


def opened(folder: Path, **data: Any) -> Dataset:
    return Dataset(Data(**data), folder, ["picture", "word"], ["word"])


def content(data: Dataset) -> list[Any]:
    return [
        [[c.value for c in data.cells(m, row)] for m in ("picture", "word")]
        + [data.classes[data.labels[row]]]
        for row in range(len(data))
    ]


@pytest.mark.parametrize("kind", ["parquet", "tar", "tar of json", "jsonl", "csv"])
def test_shards_hold_what_one_table_holds(kind: str, tmp_path: Path) -> None:
    every = rows(30)
    if kind == "csv":  # which has no bytes
        every = [{**row, "picture": row["picture"] and row["picture"].decode()} for row in every]
    columns = {"picture": "picture", "word": "word"}
    label = "label"
    for number, start in enumerate(range(0, 30, 11)):
        part = every[start : start + 11]
        if kind == "parquet":
            write_parquet(tmp_path / f"s-{number}.parquet", part)
        elif kind.startswith("tar"):
            write_tar(tmp_path / f"s-{number}.tar", in_tar(part), start)
            columns, label = {"picture": "jpg;png", "word": "txt"}, "cls"
        elif kind == "csv":
            pyarrow.csv.write_csv(pa.Table.from_pylist(part), tmp_path / f"s-{number}.csv")
        else:
            lines = [{**row, "picture": row["picture"] and row["picture"].decode()} for row in part]
            (tmp_path / f"s-{number}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    if kind == "tar of json":
        columns["word"] = "json.note.word"
    ending = kind.split()[0]
    streamed = opened(tmp_path, table=f"s-*.{ending}", columns=columns, label=label)
    assert streamed.streamed
    assert isinstance(streamed.tables[0], StreamedTable)
    if kind == "parquet" or kind.startswith("tar"):
        write_parquet(tmp_path / "whole.parquet", every)
        whole = opened(tmp_path, table="whole.parquet", label="label")
    else:
        (tmp_path / "whole.jsonl").write_text(
            "\n".join(
                json.dumps(
                    {
                        **r,
                        "picture": r["picture"].decode() if isinstance(r["picture"], bytes) else r["picture"],
                    }
                )
                for r in every
            )
        )
        whole = opened(tmp_path, table="whole.jsonl", label="label")
    assert not whole.streamed
    assert content(streamed) == content(whole)
    for least in (1, 2):
        found = [
            np.asarray(d.usable("train", ["picture", "word"], least)[0]).tolist() for d in (streamed, whole)
        ]
        assert found[0] == found[1]
    for m in ("picture", "word"):
        assert streamed.tables[0].filled(m).tolist() == whole.tables[0].filled(m).tolist()
        sizes = [d.sizes(m, np.arange(30)).tolist() for d in (streamed, whole)]
        assert sizes[0] == sizes[1] or kind == "tar of json"


def test_splits_by_file_by_column_and_beside_a_table(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a-0.parquet", rows(5))
    write_parquet(tmp_path / "a-1.parquet", rows(6))
    write_parquet(tmp_path / "b.parquet", rows(3))
    data = opened(tmp_path, tables={"train": "a-{0..1}.parquet", "test": "b.parquet"})
    assert {s: [int(r) for r in rows] for s, rows in data.splits.items()} == {
        "train": list(range(11)),
        "test": [11, 12, 13],
    }
    assert data.cells("word", 12)[0].value == "w 1"
    by = opened(tmp_path, table="a-*.parquet", split={"column": "label", "test": ["k1"], "val": ["k2"]})
    assert by.splits["test"].tolist() == [1, 4, 6, 9]
    usable = by.usable("val", ["word"], 1)
    assert np.asarray(usable[0]).tolist() == [2, 7, 10]


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_shards_after_another_table_are_read_whole(form: str, tmp_path: Path) -> None:
    every = [{**row, "picture": b"x", "word": f"w {i}"} for i, row in enumerate(rows(23))]
    for name, part in (("a", every[:9]), ("b", every[9:])):
        if form == "tar":
            write_tar(tmp_path / f"{name}.tar", in_tar(part))
        else:
            write_parquet(tmp_path / f"{name}.parquet", part)
    columns = {"picture": "png", "word": "txt"} if form == "tar" else None
    names = [{"table": f"{name}.{form}", "stream": True} for name in "ab"]
    mixed = opened(tmp_path, mix=names, columns=columns)
    tables = {"test": f"a.{form}", "train": f"b.{form}"}
    split = opened(tmp_path, tables=tables, stream=True, columns=columns)
    for data, expected in ((mixed, range(23)), (split, range(9, 23))):
        usable = data.usable("train", ["picture", "word"], 2)
        epochs = Epochs(usable, data.weights, 4, 0, orders=data.orders(usable, 0))
        seen = sorted(int(row) for batch in epochs.from_batch(0) for row in batch)
        assert seen == list(expected)
        assert {data.cells("word", row)[0].value for row in seen} == {f"w {row}" for row in expected}


def test_columns_with_full_stops_and_every_form_of_text(tmp_path: Path) -> None:
    words = ["a", "", None, "dddd"]
    for i, kind in enumerate((pa.string(), pa.large_string(), pa.string_view(), None)):
        column = pa.array(words).dictionary_encode() if kind is None else pa.array(words, kind)
        table = {"meta.word": column, "picture": column, "meta": [{"word": "x", "n": 1}] * 4}
        pq.write_table(pa.table(table), tmp_path / f"{i}.parquet")
        for stream in (False, True):
            data = opened(
                tmp_path,
                table=f"{i}.parquet",
                stream=stream,
                columns={"word": "meta.word", "picture": "picture"},
            )
            assert data.tables[0].filled("picture").tolist() == [True, False, False, True]
            assert data.tables[0].filled("word").tolist() == [True, True, False, True]
            assert data.sizes("word", np.arange(4)).tolist() == [1, 0, 0, 4]


def test_rows_of_no_split_are_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = {"word": list("abcd"), "fold": ["train", "", None, "test"], "number": [1, 2, 3, 1]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    write_tar(
        tmp_path / "a.tar", [{"txt": b"a", "json": json.dumps({"fold": f}).encode()} for f in table["fold"]]
    )
    for more in (
        {"table": "a.parquet", "split": "fold"},
        {"table": "a.parquet", "split": "fold", "stream": True},
        {"table": "a.tar", "split": "json.fold", "columns": {"word": "txt"}},
    ):
        caplog.clear()
        found = opened(tmp_path, **more).splits
        assert {split: list(map(int, numbers)) for split, numbers in found.items()} == {
            "train": [0],
            "test": [3],
        }
        (record,) = caplog.records
        assert record.getMessage() == f"{more['table']}: 2 rows name no split and are left out"
    with pytest.raises(ValueError, match="splits of their own"):
        Data(tables={"train": "a.parquet"}, split="fold")
    with pytest.raises(ValueError, match="splits of their own"):
        Data(mix=[{"tables": {"train": "a.parquet"}, "split": "fold"}])


@pytest.mark.parametrize("stream", [False, True])
def test_values_of_a_split_are_numbers_words_or_truths(stream: bool, tmp_path: Path) -> None:
    columns: list[tuple[list[Any], list[Any]]] = [
        ([1, 2, 1], [1, "1", 1.0]),
        ([1.0, 2.0, 1.0], [1, "1", 1.0]),
        ([1.5, 2.0, 1.5], [1.5, "1.5"]),
        ([True, False, True], [True, 1]),
        (["1", "2", "1"], [1, "1", 1.0]),
    ]
    for column, ways in columns:
        pq.write_table(pa.table({"word": list("abc"), "fold": column}), tmp_path / "a.parquet")
        for wanted in ways:
            by = {"column": "fold", "test": ["none", wanted], "val": [wanted]}  # the first that names it
            found = opened(tmp_path, table="a.parquet", split=by, stream=stream).splits
            assert list(found["test"]) == [0, 2], (column, wanted)
            assert list(found["train"]) == [1]
    pq.write_table(pa.table({"word": ["a"], "fold": [["x"]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="the split column 'fold' holds lists"):
        _ = opened(tmp_path, table="a.parquet", split="fold", stream=stream).splits


def test_paths_are_relative_to_their_own_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"picture": ["x.png"]}), tmp_path / name / "s.parquet")
    data = opened(tmp_path, table="*/s.parquet")
    assert [data.cells("picture", row)[0].value for row in (0, 1)] == [
        tmp_path / "a/x.png",
        tmp_path / "b/x.png",
    ]
    rooted = opened(tmp_path, table="*/s.parquet", root="pictures")
    assert rooted.cells("picture", 1)[0].value == tmp_path / "pictures/x.png"


def test_one_table_is_streamed_when_asked(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows(30))
    assert content(opened(tmp_path, table="a.parquet", stream=True, label="label")) == content(
        opened(tmp_path, table="a.parquet", label="label")
    )


def test_only_a_few_blocks_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", rows(400))
    data = opened(tmp_path, table="a.parquet", stream=True, window=8)
    table = data.tables[0]
    assert isinstance(table, StreamedTable)
    read: list[int] = []
    kept = table.shards[0].values
    monkeypatch.setattr(
        table.shards[0], "values", lambda block, column: read.append(block) or kept(block, column)
    )
    for row in range(400):
        data.cells("word", row)
        assert len(table._held) <= 7
    assert read == list(range(100))  # in order of blocks each is read once
    data.cells("word", 0)
    assert read[-1] == 0


def test_an_archive_is_scanned_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.training.shards import tar_index

    scans = []
    scan = tar_index.scan
    monkeypatch.setattr(tar_index, "scan", lambda path: scans.append(path) or scan(path))
    path = tmp_path / "a.tar"
    write_tar(path, [{"png": b"x", "txt": b"one"}])
    for _ in range(2):
        assert len(opened(tmp_path, table="a.tar", columns={"word": "txt"})) == 1
    assert len(scans) == 1
    write_tar(path, [{"png": b"x", "txt": b"one"}, {"txt": b"two"}])
    again = opened(tmp_path, table="a.tar", columns={"word": "txt", "picture": "png"})
    assert [again.cells("word", row)[0].value for row in (0, 1)] == ["one", "two"]
    assert again.cells("picture", 1) == []
    assert len(scans) == 2


def damaged(kind: str, folder: Path) -> str:
    path = folder / "a.tar"
    write_tar(path, [{"png": b"x" * 2000, "txt": b"one"}] * 3)
    data = path.read_bytes()
    if kind == "cut":
        path.write_bytes(data[:5000])
    elif kind == "header":
        path.write_bytes(data.replace(b"some/00002.png", b"some/0000x.png"))
    elif kind == "cut before a header":
        path.write_bytes(data[: data.rindex(b"some/00002.png")])
    elif kind == "two in one":
        path.write_bytes(data * 2)
    elif kind == "compressed":
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))
    elif kind == "no archive":
        path.write_bytes(b"hello" * 1000)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "twice":
        with tarfile.open(path, "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))
    elif kind == "links and folders only":
        with tarfile.open(path, "w") as archive:
            link = tarfile.TarInfo("a.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return "a.tar"


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "header",
        "cut before a header",
        "two in one",
        "compressed",
        "no archive",
        "empty",
        "twice",
        "links and folders only",
    ],
)
def test_a_damaged_archive_says_so(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tar"):
        opened(tmp_path, table=damaged(kind, tmp_path), columns={"word": "txt"})


def test_members_that_lead_outside_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("../../x.txt", "/etc/y.txt"):
            about = tarfile.TarInfo(name)
            about.size = 2
            archive.addfile(about, io.BytesIO(b"hi"))
    data = opened(tmp_path, table="a.tar", columns={"word": "txt"})
    assert [data.cells("word", row)[0].value for row in (0, 1)] == ["hi", "hi"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]


def test_grouping_is_webdatasets(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    names = [
        "a/0.png",
        "a/0.txt",
        "b/0.txt",
        "b/1.seg.png",
        "b/1.PNG",
        "c.d.txt",
        "c.txt",
        "__skip__.txt",
        "plain",
    ]
    with tarfile.open(path, "w") as archive:
        for name in names:
            about = tarfile.TarInfo(name)
            about.size = len(name)
            archive.addfile(about, io.BytesIO(name.encode()))
    theirs = [
        {k: v for k, v in sample.items() if not k.startswith("__")}
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    data = opened(tmp_path, table="a.tar", columns={"picture": "png"})
    table = data.tables[0]
    assert isinstance(table, StreamedTable)
    shard = table.shards[0]
    ours = [
        {c: shard.values(0, c)[i] for c in shard.columns if shard.values(0, c)[i] is not None}
        for i in range(len(data))
    ]
    assert ours == theirs


def test_wrong_names_say_what_there_is(tmp_path: Path) -> None:
    write_parquet(tmp_path / "shard-0.parquet", rows(2))
    for table, words in {
        "shrd-*.parquet": "did you mean 'shard-0.parquet'",
        "shard-{0..3}.parquet": "shard-1.parquet",
        "*.txt": "no file matches",
        "${NO_SUCH_VARIABLE}/*.tar": "NO_SUCH_VARIABLE is not set",
    }.items():
        with pytest.raises(UserError) as caught:
            opened(tmp_path, table=table)
        assert words in str(caught.value), table
    with pytest.raises(UserError, match=r"no column 'jpg'.*it has: label, picture, word"):
        opened(tmp_path, table="*.parquet", columns={"picture": "jpg"})
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"shards are \.tar"):
        opened(tmp_path, table="x.*")


def test_patterns() -> None:
    assert unfold("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert unfold("{x,y}{1..2}") == ["x1", "x2", "y1", "y2"]
    assert unfold("{9..10}") == ["9", "10"]
    assert not is_shards("${HOME}/a.parquet")
    assert is_shards("${HOME}/a-{0..1}.parquet")
    with pytest.raises(UserError, match="more than"):
        unfold("{0..999999999}")
    with pytest.raises(UserError, match="names"):
        unfold("{0..9999}{0..9999}{0..9999}")


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a[1].parquet", rows(2))
    assert shard_files("a[1].parquet", tmp_path) == [tmp_path / "a[1].parquet"]
    folder = tmp_path / "run[1]"
    folder.mkdir()
    write_parquet(folder / "b.parquet", rows(2))
    assert shard_files("*.parquet", folder) == [folder / "b.parquet"]
    assert shard_files(f"{tmp_path}/a*.parquet", folder) == [tmp_path / "a[1].parquet"]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), group=st.integers(1, 5), data=st.data())
def test_any_cut_into_shards_and_row_groups_reads_the_same(
    sizes: list[int], group: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    every = [{"word": f"w{i}", "picture": None} for i in range(sum(sizes))]
    schema = pa.schema([("picture", pa.binary()), ("word", pa.string())])
    start = 0
    for i, size in enumerate(sizes):
        part = pa.Table.from_pylist(every[start : start + size], schema=schema)
        pq.write_table(part, folder / f"{i}.parquet", row_group_size=group)
        start += size
    opened_ = opened(folder, table="*.parquet", window=3)
    assert len(opened_) == len(every)
    order = data.draw(st.permutations(range(len(every))))
    assert [opened_.cells("word", row)[0].value for row in order] == [f"w{row}" for row in order]


def test_statistics_are_believed_only_where_they_tell(tmp_path: Path) -> None:
    table = {
        "full": ["a", "b"],
        "hollow": ["", "b"],
        "holes": [None, "b"],
        "numbers": [1.0, float("nan")],
        "lists": [[], ["x"]],
        "arrays": [[1.0, 2.0], None],
        "structs": [{"bytes": b"x", "path": None}, {"bytes": None, "path": None}],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    names = list(table)
    for stream in (False, True):
        data = Dataset(Data(table="a.parquet", stream=stream), tmp_path, names, [])
        assert {n: data.tables[0].filled(n).tolist() for n in names} == {
            "full": [True, True],
            "hollow": [False, True],
            "holes": [False, True],
            "numbers": [True, False],
            "lists": [False, True],
            "arrays": [True, False],
            "structs": [True, False],
        }
