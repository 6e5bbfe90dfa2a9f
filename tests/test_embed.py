"""A table embedded in parts: the same rows whoever makes them, and whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import modalign
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from modalign.cli.main import main
from modalign.errors import UserError
from modalign.training.embedding.parts import PartsFolder

from .conftest import TINY, digit_rows

RUN = "import sys; from modalign.cli.main import main; sys.exit(main())"
BROKEN, EMPTY = (7, 70, 71, 140), (3, 16, 17, 149)
"""Rows whose picture cannot be read, or is not there."""


def train(table: Path, out: Path, dim: int = 16) -> Path:
    """A space of pictures and words, hardly trained."""
    plan: dict[str, Any] = {
        "name": "tiny",
        "data": {"table": str(table)},
        "modalities": {name: TINY[name] for name in ("image", "text")},
        "space": {"dim": dim, "projection": {"name": "universal", "width": 16, "heads": 2, "hidden": 32}},
        "stages": [
            {"name": "one", "align": ["image", "text"], "losses": {"infonce": 1.0}, "epochs": 1, "lr": 1e-3}
        ],
        "track": {"uri": None},
        "fabric": {"accelerator": "cpu"},
    }
    modalign.align(plan, out=out)
    return out / "space"


@pytest.fixture(scope="module")
def home(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, a table with gaps, and the same a dozen times over."""
    folder = tmp_path_factory.mktemp("home")
    train(digits, folder / "run")
    rows = digit_rows()
    for i, row in enumerate(rows):
        row["name"] = f"digit-{i:03d}" if i != 5 else None
        if i in EMPTY:
            row["image"] = None
        if i in BROKEN:
            row["image"] = {"bytes": b"no picture", "path": None}
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "table.parquet")
    pq.write_table(pa.concat_tables([table] * 12), folder / "long.parquet")
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def embed(*more: str, table: str = "table.parquet", out: Path, modality: str = "image") -> list[str]:
    return ["embed", "run", modality, "--table", table, "--out", str(out), "--part-rows", "16", *more]


@pytest.fixture(scope="module")
def long_rows(home: Path) -> pa.Table:
    """The long table's embeddings, made undisturbed and in one process."""
    out = home / "undisturbed.parquet"
    arguments = embed(table=str(home / "long.parquet"), out=out)
    assert main(["embed", str(home / "run"), *arguments[2:]]) == 0
    return pq.read_table(out)


def test_readable_rows_in_order_as_the_space_embeds_them(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.parquet"
    assert main(embed("--id", "name", "--batch-size", "6", out=out)) == 0
    table = pq.read_table(out)
    assert table.column_names == ["row", "name", "embedding"]
    good = [row for row in range(150) if row not in BROKEN + EMPTY]
    assert table["row"].to_pylist() == good
    assert table["name"].to_pylist() == [f"digit-{i:03d}" if i != 5 else None for i in good]
    space = modalign.load("run")
    values = [row["bytes"] for row in pq.read_table("table.parquet").take(good)["image"].to_pylist()]
    vectors = torch.tensor(table["embedding"].to_pylist())
    assert torch.allclose(vectors, space.embed("image", values), atol=1e-6)
    bad = pyarrow.csv.read_csv(f"{out}.quarantine.csv").to_pylist()
    assert [row["row"] for row in bad] == list(BROKEN)
    assert {row["table"] for row in bad} == {str(home / "table.parquet")}
    assert sorted(p.name for p in out.parent.iterdir()) == ["a.parquet", "a.parquet.quarantine.csv"]


def test_one_row_group_a_part_and_what_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.parquet"
    assert main(embed(out=out)) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "142 embeddings in" in said.err
    assert "(4 could not be read: " in said.err
    for word in ("rows/s per worker", "reading, peak memory", "core-hours"):
        assert word in said.err
    file = pq.ParquetFile(out)
    assert file.metadata.num_row_groups == 10
    about = json.loads(file.schema_arrow.metadata[b"modalign"])
    assert about["modality"] == about["column"] == "image"
    cost = about["cost"]
    assert (cost["rows"], cost["unreadable"], cost["workers"]) == (142, 4, 1)
    assert 0 < cost["worker_seconds"] < cost["seconds"] < 60
    assert cost["rows_per_second_per_worker"] == pytest.approx(142 / cost["worker_seconds"], rel=0.01)
    assert cost["core_hours_per_million"] == pytest.approx(cost["worker_seconds"] / 142 / 3600e-6, rel=0.01)
    assert 0 < cost["read_share"] < 1
    assert cost["peak_memory"] > 50e6
    assert main(embed("--quiet", out=out)) == 0
    assert capsys.readouterr().err == ""


def test_shards_give_the_rows_of_one_table(home: Path, tmp_path: Path) -> None:
    table = pq.read_table("table.parquet")
    for i, start in enumerate((0, 40, 100)):
        pq.write_table(table.slice(start, (40, 60, 50)[i]), tmp_path / f"{i}.parquet", row_group_size=7)
    outs = [tmp_path / "one" / "a.parquet", tmp_path / "shards" / "a.parquet"]
    for out, data in zip(outs, ("table.parquet", str(tmp_path / "*.parquet")), strict=True):
        assert main(embed("--id", "label", table=data, out=out)) == 0
    one, shards = map(pq.read_table, outs)
    assert one.equals(shards)
    bad = [pyarrow.csv.read_csv(f"{out}.quarantine.csv")["row"].to_pylist() for out in outs]
    assert bad == [list(BROKEN)] * 2


def test_alternatives_and_a_table_without_rows(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    assert main(embed(out=out, modality="text")) == 0
    assert pq.read_table(out)["row"].to_pylist() == [row for row in range(150) for _ in range(2)]
    pq.write_table(pq.read_table("table.parquet").slice(0, 0), tmp_path / "none.parquet")
    assert main(embed("--id", "name", "--workers", "2", table=str(tmp_path / "none.parquet"), out=out)) == 0
    assert pq.read_table(out).num_rows == 0
    assert pq.read_table(out).column_names == ["row", "name", "embedding"]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Processes that embed for this one."""
    found = []
    for child in process.children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def parts(out: Path) -> list[Path]:
    return list(Path(f"{out}.parts").glob("part-*.parquet"))


def until(condition: Any, seconds: float = 60) -> Any:
    """What ``condition`` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)
    return found


def in_background(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_killed_worker_changes_nothing(
    tmp_path: Path, long_rows: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    out, me, killed = tmp_path / "a.parquet", psutil.Process(), []

    def kill() -> None:
        until(lambda: parts(out))
        (victim,) = until(lambda: workers_of(me))[:1]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    thread = in_background(kill)
    assert main(embed("--workers", "2", "--id", "name", table="long.parquet", out=out)) == 0
    thread.join()
    assert killed
    assert "its worker was killed by SIGKILL; another one does them again" in caplog.text
    table = pq.read_table(out)
    assert table.drop_columns("name").equals(long_rows)
    names = pq.read_table("long.parquet")["name"].take(table["row"])
    assert table["name"].equals(names)
    bad = pyarrow.csv.read_csv(f"{out}.quarantine.csv")["row"].to_pylist()
    assert bad == [150 * again + row for again in range(12) for row in BROKEN]
    assert json.loads(table.schema.metadata[b"modalign"])["cost"]["workers"] >= 2
    assert not workers_of(me)


def test_a_part_that_costs_three_workers_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, me, stop = tmp_path / "a.parquet", psutil.Process(), threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for worker in workers_of(me):
                os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.002)

    thread = in_background(kill)
    assert main(embed("--workers", "2", out=out)) == 1
    stop.set()
    thread.join()
    said = capsys.readouterr().err
    assert "rows 0 to 15: three workers in turn were killed by SIGKILL" in said or "rows 16 to 31" in said
    assert "--resume" in said
    assert not out.exists()
    assert not workers_of(me)
    assert main(embed("--resume", out=out)) == 0
    assert pq.read_table(out).num_rows == 142


@pytest.fixture
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[psutil.Popen, Path]]:
    """A run, by default with two workers, of which the first parts are done."""
    out, workers = tmp_path / "a.parquet", str(getattr(request, "param", 2))
    arguments = [sys.executable, "-c", RUN, *embed("--workers", workers, table="long.parquet", out=out)]
    run = psutil.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until(lambda: parts(out))
        yield run, out
    finally:
        if run.is_running():
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.parametrize(
    ("number", "started"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)], indirect=["started"]
)
def test_an_interrupted_run_ends_at_once_and_goes_on(
    number: signal.Signals, started: tuple[psutil.Popen, Path], long_rows: pa.Table
) -> None:
    run, out = started
    team = workers_of(run)
    assert len(team) == (2 if number == signal.SIGINT else 0)
    for worker in team:  # whose own end by Ctrl-C would be a traceback
        status = Path(f"/proc/{worker.pid}/status").read_text()
        blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
        assert blocked >> (signal.SIGINT - 1) & 1
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    assert "parts are kept: go on with --resume" in said
    assert "Traceback" not in said
    assert not [worker for worker in team if worker.is_running()]
    kept = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert kept
    assert main(embed("--resume", table="long.parquet", out=out)) == 0
    assert pq.read_table(out).equals(long_rows)


def test_a_killed_run_leaves_no_process_and_goes_on(
    started: tuple[psutil.Popen, Path], long_rows: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = started
    everybody = run.children(recursive=True)
    run.kill()
    run.wait()
    psutil.wait_procs(everybody, timeout=20)
    assert not [p for p in everybody if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not out.exists()

    assert main(embed(table="long.parquet", out=out)) == 2
    said = capsys.readouterr().err
    assert "go on with --resume" in said
    assert f"rm -r {out}.parts" in said
    for what, wrong in {
        "table": embed("--resume", out=out),
        "modality (image, now text)": embed("--resume", table="long.parquet", out=out, modality="text"),
        "column (image, now label)": embed("--resume", "--column", "label", table="long.parquet", out=out),
        "id (None, now name)": embed("--resume", "--id", "name", table="long.parquet", out=out),
        "part_rows (16, now 8)": embed("--resume", "--part-rows", "8", table="long.parquet", out=out),
    }.items():
        assert main(wrong) == 2
        assert what in capsys.readouterr().err

    first, *_ = sorted(parts(out))
    before = {path: path.stat().st_mtime_ns for path in parts(out)}
    first.write_bytes(first.read_bytes()[:-100])  # as a full disk or a power cut might
    arguments = embed("--resume", table="long.parquet", out=out)
    del arguments[arguments.index("--part-rows") : arguments.index("--part-rows") + 2]
    touched: list[Path] = []

    def watch() -> None:
        while Path(f"{out}.parts").exists():
            for path, stamp in before.items():
                if path.exists() and path.stat().st_mtime_ns != stamp and path not in touched:
                    touched.append(path)
            time.sleep(0.002)

    before[first] = first.stat().st_mtime_ns
    thread = in_background(watch)
    assert main(arguments) == 0
    thread.join()
    assert touched == [first]
    assert pq.read_table(out).equals(long_rows)


def test_another_space_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.parquet"
    folder = PartsFolder(out)
    folder.claim({"space": "another"}, None)
    assert main(embed("--resume", out=out)) == 2
    assert "was started with something else: space" in capsys.readouterr().err
    folder.release()


def test_two_runs_do_not_write_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (PartsFolder(tmp_path / "a.parquet") for _ in range(2))
    first.claim({"space": "x"}, None)
    with pytest.raises(UserError, match="another process is writing"):
        second.claim({"space": "x"}, second.earlier(True))
    first.release()
    second.claim({"space": "x"}, second.earlier(True))
    second.release()
    shutil.rmtree(first.path)
    for folder in (first, second):  # both look before either begins
        assert folder.earlier(False) is None
    first.claim({"space": "x"}, None)
    with pytest.raises(UserError, match="another process is writing"):
        second.claim({"space": "x"}, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet.parts"]
    first.release()


def test_out_is_neither_a_folder_nor_what_is_read(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.parquet"
    shutil.copy(home / "table.parquet", table)
    before = table.read_bytes()
    (tmp_path / "folder").mkdir()
    for given, pattern in (
        (table, str(table)),
        (tmp_path / "folder/../t.parquet", str(tmp_path / "*.parquet")),
    ):
        assert main(embed(table=pattern, out=given)) == 2
        assert "would be lost: name another file" in capsys.readouterr().err
        assert table.read_bytes() == before
    for given in (tmp_path / "folder", Path()):
        for values in (["--table", str(table)], ["picture.png"]):
            assert main(["embed", "run", "image", *values, "--out", str(given)]) == 2
            assert "is a folder; name a file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "t.parquet"]


def test_files_of_a_folder_keep_their_names(home: Path, tmp_path: Path) -> None:
    pictures = [row["bytes"] for row in pq.read_table("table.parquet").slice(20, 3)["image"].to_pylist()]
    for i, picture in enumerate(pictures):
        (tmp_path / f"pets/{'cat' if i else 'dog'}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"pets/{'cat' if i else 'dog'}/{i}.png").write_bytes(picture)
    for carried, names in (
        ("png", ["cat/1.png", "cat/2.png", "dog/0.png"]),
        ("folder", ["cat", "cat", "dog"]),
    ):
        out = tmp_path / f"{carried}.parquet"
        more = ["--column", "png", "--id", carried]
        assert main([*embed(table=str(tmp_path / "pets"), out=out), *more]) == 0
        assert pq.read_table(out)[carried].to_pylist() == names
    (tmp_path / "pets/dog/0.txt").write_text("see http://x.org//y/ or /etc/hosts")
    out = tmp_path / "txt.parquet"
    more = ["--column", "txt", "--id", "txt"]
    assert main([*embed(table=str(tmp_path / "pets"), out=out, modality="text"), *more]) == 0
    assert pq.read_table(out)["txt"].to_pylist() == ["see http://x.org//y/ or /etc/hosts"]


def test_what_is_embedded_may_be_the_id_where_it_is_a_value(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.target").mkdir()
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "x.target/a.parquet")
    out = tmp_path / "z.parquet"
    assert (
        main([*embed(table=str(tmp_path / "x.target/a.parquet"), out=out, modality="text"), "--id", "text"])
        == 0
    )
    assert pq.read_table(out)["text"].to_pylist() == ["one", "two"]
    picture = pq.read_table("table.parquet").slice(20, 1)["image"].to_pylist()[0]["bytes"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        about = tarfile.TarInfo("0.png")
        about.size = len(picture)
        archive.addfile(about, io.BytesIO(picture))
    for column, carried in (("png", "png"), ("png", "png;jpg"), ("png;jpg", "png")):
        more = ["--column", column, "--id", carried]
        assert main([*embed(table=str(tmp_path / "a.tar"), out=out), *more]) == 2
        assert f"--id {carried} is what is embedded; name another column" in capsys.readouterr().err
    (tmp_path / "img").mkdir()
    (tmp_path / "img/1.png").write_bytes(picture)
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "img/1.png"}]}), tmp_path / "t.parquet")
    assert main([*embed(table=str(tmp_path / "t.parquet"), out=out), "--id", "image"]) == 0
    assert pq.read_table(out)["image"].to_pylist() == ["img/1.png"]


def test_ids_of_several_kinds_become_text(home: Path, tmp_path: Path) -> None:
    words = {"text": ["one", "two"]}
    (tmp_path / "only").mkdir()
    kinds: list[Any] = [
        [2**60 + 1, None],
        [0.5, 1.0],
        [{"a": 1}, {"a": 2}],
        pa.array([2**63, 1], pa.uint64()),
        ["x", "y"],
    ]
    for i, ids in enumerate(kinds):
        pq.write_table(pa.table({**words, "key": ids}), tmp_path / f"{i}.parquet")
    out = tmp_path / "out" / "z.parquet"
    more = ["--id", "key", "--part-rows", "2"]
    assert main([*embed(table=str(tmp_path / "*.parquet"), out=out, modality="text"), *more]) == 0
    found = pq.read_table(out)["key"].to_pylist()
    assert found == [str(2**60 + 1), None, "0.5", "1.0", "{'a': 1}", "{'a': 2}", str(2**63), "1", "x", "y"]
    pq.write_table(pa.table({**words, "key": [Decimal("1.5"), Decimal("2.5")]}), tmp_path / "only/0.parquet")
    pq.write_table(pa.table({**words, "key": [1, 2]}), tmp_path / "only/1.parquet")
    assert main([*embed(table=str(tmp_path / "only/*.parquet"), out=out, modality="text"), *more]) == 0
    assert pq.read_table(out)["key"].to_pylist() == ["1.5", "2.5", "1", "2"]


def test_small_tables_are_embedded_without_advice(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(embed(out=tmp_path / "a.parquet")) == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--column", "imgae"], "no column 'imgae'; did you mean 'image'?"),
        (["--id", "nmae"], "no column 'nmae'; did you mean 'name'?"),
        (["--id", "text"], "'text' holds a list"),
        (["--id", "row"], "rename it in the table"),
        (["--device", "cuda:77"], "no device 'cuda:77'"),
        (["--device", "gpu"], "no device 'gpu'"),
        (["--ray-address", "auto"], "goes with --engine ray"),
        (["--table", "none.parquet"], "no file matches none.parquet"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*embed(out=tmp_path / "a.parquet"), *more]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_the_page(home: Path, digits: Path, in_tmp: Path) -> None:
    """Every command of docs/embedding.md runs, and its sample after the first of them."""
    page = (Path(__file__).parents[1] / "docs" / "embedding.md").read_text(encoding="utf-8")
    Path("runs").mkdir()
    os.symlink(home / "run", "runs/demo")
    Path("examples/demo").mkdir(parents=True)
    os.symlink(digits, "examples/demo/digits.parquet")
    rows = pq.read_table(digits).append_column("key", pa.array(range(150)))
    Path("shards").mkdir()
    for i in range(2):
        pq.write_table(rows.slice(75 * i, 75), f"shards/{i}.parquet")
    typed = re.findall(r"^\$ modalign (.*)$", page.replace("\\\n", " "), re.MULTILINE)
    assert len(typed) == 4
    for line in typed:
        if "--engine ray" not in line:  # tests/test_embed_ray.py has a cluster
            assert main(shlex.split(line)) == 0
            assert pq.read_metadata("pictures.parquet").num_rows == 150
    (sample,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(sample, "embedding.md", "exec"), {})


def test_options_of_tables_are_not_for_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "a.parquet")
    for option in (["--workers", "2"], ["--id", "name"], ["--resume"]):
        assert main(["embed", "run", "text", "one", "--out", out, *option]) == 2
        assert f"{option[0]} is for a --table" in capsys.readouterr().err


def test_an_error_in_a_worker_names_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker's input that only it can find wrong, in the middle of the table."""
    rows = [{"text": "one", "tag": "a"}] * 40 + [{"text": "two", "tag": "b"}] * 8
    table = tmp_path / "t.jsonl"
    lines = [json.dumps(row | {"tag": [row["tag"]] * (2 if i > 40 else 1)}) for i, row in enumerate(rows)]
    table.write_text("\n".join(lines))
    out = tmp_path / "a.parquet"
    more = ["--workers", "2", "--id", "tag", "--part-rows", "64"]
    assert main([*embed(table=str(table), out=out, modality="text"), *more]) == 2
    assert "row 41: 'tag' holds a list" in capsys.readouterr().err


def test_memory_does_not_grow_with_rows(home: Path, digits: Path, tmp_path: Path) -> None:
    """Embeddings alone would be 72 MB more for the longer table."""
    space = train(digits, tmp_path / "wide", dim=1024)
    code = (
        "import sys; from modalign.cli.main import main; status = main();"
        "from modalign.training.embedding.cost import peak_memory; print(peak_memory()); sys.exit(status)"
    )
    peaks = []
    for rows in (2000, 20000):
        table = tmp_path / f"{rows}.csv"
        table.write_text("text\n" + "".join(f"word {i % 50}\n" for i in range(rows)))
        done = subprocess.run(
            [sys.executable, "-c", code, "embed", str(space), "text", "--table", str(table), "--out",
             str(tmp_path / "a.parquet"), "--part-rows", "500", "--batch-size", "500"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 30e6, peaks
