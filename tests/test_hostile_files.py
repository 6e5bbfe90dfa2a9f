"""What the fuzzers found: each of these once brought a reader down, or would have let it run on for ever."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign import BadSample, UserError
from modalign.contracts.modality import file_bytes
from modalign.hub.card import read_card
from modalign.plain_array import map_array
from modalign.plugin.registry import entries
from modalign.search.index_files import ABOUT, FORMAT, open_index
from modalign.training.cells import Cell
from modalign.training.checkpoint import latest_checkpoint, read_checkpoint, save_checkpoint
from modalign.training.checks import prepare
from modalign.training.compare import read_run
from modalign.training.data import Dataset
from modalign.training.data_plan import Data
from modalign.training.json_lines import check_lines
from modalign.training.metric_log import read_metrics
from modalign.training.plan_file import read_plan
from modalign.training.shards.parquet_statistics import Statistics

DEEP = 20_000


@pytest.mark.parametrize(
    "lines",
    [
        "null",
        '{"word": "a"}\n' * 60_000 + "  null\n",
        '{"word": ' + "[" * DEEP + "]" * DEEP + "}",
        '{"}}}": "]]]", "word": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}",
        "}" * DEEP + "\n" + '{"a":' * DEEP,
    ],
    ids=["null", "null later", "deep lists", "deep mappings", "closed before"],
)
def test_json_lines_that_crash_arrow_are_refused_before_it_sees_them(lines: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(lines)
    with pytest.raises(UserError, match=r"t\.jsonl: not a readable jsonl table: (a line holds|values are)"):
        Dataset(Data(table="t.jsonl"), tmp_path, ["word"], ["word"])


def test_json_lines_that_only_look_deep_are_read(tmp_path: Path) -> None:
    rows = [{"word": "[" * 500 + '"\\' + "{" * 500, "n": [[1, 2]] * 200}, {"word": "null", "n": None}] * 30
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_lines(tmp_path / "t.jsonl")
    data = Dataset(Data(table="t.jsonl"), tmp_path, ["word"], ["word"])
    assert [data.cells("word", row)[0].value for row in range(60)] == [row["word"] for row in rows]


def test_names_and_texts_that_are_no_utf8_are_one_message(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"word,caf\xe9\nx,y\n")
    (tmp_path / "t.jsonl").write_bytes(b'{"word": {"a\xff": 1}}\n')
    texts = pa.array([b"\xff\xfe", b"x"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"word": texts}), tmp_path / "t.parquet")
    for table, stream in (("t.csv", False), ("t.jsonl", False), ("t.parquet", False), ("t.parquet", True)):
        with pytest.raises(UserError, match=r"t\.\w+: .*(UTF-?8|utf-?8)"):
            Dataset(Data(table=table, stream=stream), tmp_path, ["word"], ["word"]).cells("word", 0)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.txt")).write_text("x")
    with pytest.raises(UserError, match="not UTF-8"):
        Dataset(Data(table="folder"), tmp_path, ["txt"], ["txt"])


def test_whatever_a_parquet_file_s_metadata_claim(tmp_path: Path) -> None:
    """Each byte of them changed, it is read or refused in words; pyarrow alone would end the process."""
    file = tmp_path / "t.parquet"
    rows = {"word": ["a", "b", "c"], "label": ["k", "l", "k"], "split": ["train", "val", "train"]}
    pq.write_table(pa.table(rows), file)
    content = file.read_bytes()
    told = set()
    first, end = len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content) - 8
    for at, other in ((i, new) for i in range(first, end) for new in (0, content[i] ^ 1, content[i] ^ 128)):
        file.write_bytes(content[:at] + bytes([other]) + content[at + 1 :])
        try:
            dataset = Dataset(
                Data(table="t.parquet", columns={"word": "word"}, label="label", split="split", stream=True),
                tmp_path,
                ["word"],
                ["word"],
            )
            _ = dataset.splits, dataset.labels, dataset.usable("train", ["word"], 1)
        except UserError as error:
            told.add(str(error))
    for reason in (
        "it holds 0 of its 3 values of split",
        "word is BYTE_ARRAY, its row group BOOLEAN",
        "level histogram size mismatch",
        "in row groups of -",
        "can't decode byte",
    ):
        assert any(reason in one for one in told), (reason, told)


def test_a_cell_that_names_a_pipe_or_a_device_is_a_bad_sample(tmp_path: Path) -> None:
    """Reading one of them would never end; this test would hang."""
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "fifo", Path("/dev/zero"), tmp_path, Path("a\0b"), Path("x" * 5000)):
        with pytest.raises(BadSample):
            file_bytes(name)
        assert len(Cell(name).key) == 16
        assert Cell(name).size == 0


@pytest.mark.parametrize("read", ["plan", "override", "catalogue"])
@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP,
        "[ " * 99 + "[\n" * DEEP,
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
        "name: &a {b: *a}",
        "x: 2001-99-99",
        "x: " + "9" * 6000,
        "x: !!int abc",
        "- x\n" * 100_000,
        'x: "\\ud800"',
    ],
    ids=[
        "deep",
        "deep lines",
        "unfolds",
        "holds itself",
        "no date",
        "huge",
        "no number",
        "long",
        "half a character",
    ],
)
def test_yaml_from_strangers(read: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    reading = {
        "plan": lambda: read_plan(file),
        "override": lambda: read_plan({"name": "x", "seed": 1}, [f"seed={text}"]),
        "catalogue": lambda: entries(file),
    }
    with pytest.raises(UserError):
        reading[read]()


def test_a_plan_of_many_problems_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("name: x\n" * 5000)
    with pytest.raises(UserError, match=r"5\d\d\d problems|4999 problems|has \d+ problems") as caught:
        prepare(read_plan(tmp_path / "plan.yaml"))
    assert len(str(caught.value)) < 20_000


def test_an_override_s_key_that_int_cannot_read() -> None:
    for key in ("²", "9" * 5000):
        with pytest.raises(UserError, match="in that list"):
            read_plan({"stages": [{"name": "one"}]}, [f"stages.{key}.lr=1"])


def test_a_forged_checkpoint_is_set_aside(tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Forged:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    save_checkpoint(tmp_path, 1, {"step": 1}, 9)
    payloads = [b".", b"(", b"\x80\x02]q\x00.", pickle.dumps(Forged()), pickle.dumps([1]), b"PK\3\4", b""]
    for step, payload in enumerate(payloads, 2):
        path = save_checkpoint(tmp_path, step, {}, 99)
        head = json.dumps({"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
        path.write_bytes(head.encode() + b"\n" + payload)
        with pytest.raises(ValueError, match=r"\w"):
            read_checkpoint(path)
    payload = io.BytesIO()
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr("archive/data.pkl", b"c" + b"a" * 200_000 + b"\nb\n.")
        archive.writestr("archive/version", b"3\n")
    head = json.dumps(
        {"size": len(payload.getvalue()), "sha256": hashlib.sha256(payload.getvalue()).hexdigest()}
    )
    path.write_bytes(head.encode() + b"\n" + payload.getvalue())
    with pytest.raises(ValueError, match="by a name that goes on"):
        read_checkpoint(path)
    for begins in (b"", b"[]\n", b"{}\n", b'{"size": 0}\n', b"[" * DEEP):
        path.write_bytes(begins)
        with pytest.raises(ValueError, match=r"\w"):
            read_checkpoint(path)
    with pytest.warns(UserWarning, match="is damaged"):
        assert latest_checkpoint(tmp_path) == {"step": 1}
    assert not (tmp_path / "owned").exists()


def test_an_array_s_header_may_hold_anything(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((4, 4)))
    whole = file.getvalue()
    for old, new in (
        (b"(4, 4)", b"(4, 4,"),
        (b"'<f8'", b"'|O' "),
        (b"{", b"("),
        (b"(4, 4)", b"(9**9)"),
        (b"\x93NUM", b"PK\3\4"),
    ):
        (tmp_path / "a.npy").write_bytes(whole.replace(old, new))
        with pytest.raises((ValueError, OSError)):
            map_array(tmp_path / "a.npy")


def test_damaged_metrics_are_left_out(tmp_path: Path) -> None:
    good = json.dumps({"stage": "a", "step": 1, "time": 1, "metrics": {"loss": 1.0, "x": "NaN"}})
    bad = [
        "null",
        "{",
        "[]",
        '{"metrics": 1}',
        good.replace("1.0", '"high"'),
        good.replace('"step": 1', '"step": []'),
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join([good, *bad, good]) + "\n")
    with pytest.warns(UserWarning, match="6 damaged lines"):
        records = list(read_metrics(tmp_path / "metrics.jsonl"))
    assert [r["step"] for r in records] == [1, 1]


@pytest.mark.parametrize("report", ["[]", "3", "null", '{"plan": 1, "stages": [], "tasks": {}}', "[" * DEEP,
                                    '{"plan": {}, "stages": [{"seconds": "x"}], "tasks": {}}', '{"plan": {}, "stages": [], "tasks": {"a": [1]}}'])  # fmt: skip
def test_reports_that_are_none(report: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report)
    with pytest.raises(UserError, match=r"report\.json cannot be read"):
        read_run(str(tmp_path))


def test_a_space_that_claims_more_than_its_weights_is_refused_unbuilt(tmp_path: Path) -> None:
    """Built as claimed, it would take 128 GB."""
    pytest.importorskip("modalign_text")
    code = f"""
import json, sys
from pathlib import Path
import modalign, torch
from modalign.space import Space, SpaceModality
from modalign.spec import Spec
from modalign_text.char_cnn import CharCNN
folder = Path({str(tmp_path / "space")!r})
space = Space(8, Spec("linear"))
entry = SpaceModality(Spec("modalign-text:text"), Spec("modalign-text:char-cnn", {{"width": 8, "layers": 1}}), 8, True)
space.add("text", entry, CharCNN(width=8, layers=1), founder=True)
space.save(folder)
modalign.load(folder)
whole = json.loads((folder / "config.json").read_text())
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
before = peak()
for change in ("dim", "width", "encoder", "layers", "plugins", "list", "deep"):
    config = json.loads(json.dumps(whole))
    text = config["modalities"]["text"]
    if change == "dim":
        config["dim"] = 1 << 32
    elif change == "width":
        text["width"] = 1 << 32
    elif change == "encoder":
        text["encoder"]["width"] = 1 << 17
    elif change == "layers":
        text["encoder"]["layers"] = 1 << 32
    elif change == "plugins":
        config["plugins"] = {{"modalign": 1}}
    (folder / "config.json").write_text({{"list": "[]", "deep": "[" * 20000}}.get(change) or json.dumps(config))
    try:
        modalign.load(folder)
        sys.exit(f"{{change}} was loaded")
    except modalign.UserError as error:
        print(str(error)[:150])
assert peak() - before < 200_000, peak() - before
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("damaged") == 7


def test_a_card_nested_without_end_tells_nothing(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    for front in ("license: " + "[" * 900 + "]" * 900, "license: " + "- " * DEEP, "tags: 3"):
        card.write_text(f"---\n{front}\n---\n# a space\n")
        assert read_card(card) == {}
    card.write_text("---\nlicense: mit\n---\n# a space\n")
    assert read_card(card) == {"license": "mit"}


def test_an_index_of_another_form_is_one_short_message(tmp_path: Path) -> None:
    about = {"format": FORMAT, "space": "s", "dim": 8, "version": "v", "modalities": {"a": "x" * 100_000}}
    for changed in (about, {**about, "format": "y" * 100_000}):
        (tmp_path / ABOUT).write_text(json.dumps(changed))
        with pytest.raises(UserError, match="the index") as caught:
            open_index(tmp_path, "s")
        assert len(str(caught.value)) < 2000


def test_a_column_that_claims_more_than_its_file_holds(tmp_path: Path) -> None:
    pq.write_table(pa.table({"word": ["a", "b"]}), tmp_path / "t.parquet")
    file = pq.ParquetFile(tmp_path / "t.parquet")
    statistics = Statistics(file, (tmp_path / "t.parquet").stat().st_size)
    assert statistics.of(0, 0).null_count == 0
    pages = weakref.ref(statistics._pages)
    del statistics
    gc.collect()
    assert pages() is None  # there may be millions of row groups
    with pytest.raises(OSError, match="Invalid column metadata"):
        Statistics(file, 10).of(0, 0)


def test_a_deep_picture_counts_four_times(tmp_path: Path) -> None:
    """What a float TIFF unpacks to is four bytes a pixel, and as much again while it is scaled."""
    decode = pytest.importorskip("modalign_image.decode").decode
    from PIL import Image

    file = io.BytesIO()
    Image.new("F", (40, 50)).save(file, "TIFF")
    with pytest.raises(BadSample, match="40 x 50 pixels"):
        decode(file.getvalue(), 7999, 16)
    assert decode(file.getvalue(), 8000, 16).size == (40, 50)
