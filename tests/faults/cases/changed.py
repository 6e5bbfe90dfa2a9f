"""What a run was started with is another when it is to go on: it says so and changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill, moment
from ..process import Ended


def refused(says: str) -> Promise:
    return Promise(2, says, more="nothing was changed")


def stopped(bench: Bench) -> None:
    bench.undisturbed()
    bench.align(at=kill("step", count=5)).end()


def refuses(bench: Bench, spoil: Callable[[], object], mend: Callable[[], object]) -> Ended:
    """Stop a run, spoil something, try to resume in vain, mend it."""
    stopped(bench)
    spoil()
    before = listing(bench.run)
    ended = bench.align("--resume", keep_plan=True).end()
    assert listing(bench.run) == before, "a refused run changed the run folder"
    mend()
    return ended


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def another_row(path: Path) -> None:
    rows = pq.read_table(path).to_pylist()
    rows[3]["text"] = ["something else"]
    pq.write_table(pa.Table.from_pylist(rows), path)


TABLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a cell of the table was changed": (another_row, "was started with something else: data"),
    "the table is gone": (Path.unlink, "there is no file"),
    "the table is cut in half": (
        lambda path: os.truncate(path, path.stat().st_size // 2),
        "not a readable parquet",
    ),
    "the table is empty": (lambda path: os.truncate(path, 0), "not a readable parquet"),
    "the table holds noise": (lambda path: path.write_bytes(os.urandom(5000)), "not a readable parquet"),
    "the table is a folder": (lambda path: (path.unlink(), path.mkdir()), "the folder .* holds no files"),
}
for name, (spoil, says) in TABLES.items():

    @case("table", name, "before --resume", refused(says), quick=name.startswith("a cell"))
    def table(bench: Bench, spoil: Callable[[Path], object] = spoil) -> Ended:
        bench.undisturbed()
        path = bench.own_data() / "pairs.parquet"
        kept = path.with_name("kept")
        shutil.copy(path, kept)

        def mend() -> None:
            if path.is_dir():
                path.rmdir()
            kept.replace(path)

        return refuses(bench, lambda: spoil(path), mend)


@case("table", "the table is overwritten while the run goes on", "after step 5", Promise())
def table_in_use(bench: Bench) -> Ended:
    path = bench.own_data() / "pairs.parquet"
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    path.write_bytes(os.urandom(path.stat().st_size))
    bench.go_on()
    return running.end()


@case("table", "the table has no rows", "from the start", Promise(
    2, "split|rows", resumes=False, same=False, more="nothing was written"))  # fmt: skip
def no_rows(bench: Bench) -> Ended:
    path = bench.own_data() / "pairs.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    return bench.align().end()


@case("table", "the table has one row", "from the start", Promise(0, same=False))
def one_row(bench: Bench) -> Ended:
    path = bench.own_data() / "pairs.parquet"
    rows = pq.read_table(path).slice(1, 1).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**rows[0], "split": "train"}]), path)
    bench.plan["tasks"] = []
    bench.plan["stages"][0].pop("select")
    return bench.align().end()


def rewrite(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


PLANS: dict[str, tuple[str, str, str]] = {
    "the plan has another learning rate": ("lr: 0.003", "lr: 0.004", "was started with something else: .*lr"),
    "the plan has another seed": ("name: tiny", "name: tiny\nseed: 7", "was started with something else: .*seed"),
    "the plan has a misspelt key": ("epochs:", "epocs:", "epocs.*did you mean 'epochs'"),
    "the plan is no YAML": ("data:", "data: [", "plan.yaml"),
    "the plan names an environment variable that is not set": (
        "table: ", "table: ${NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE is not set",
    ),
}  # fmt: skip
for name, (old, new, says) in PLANS.items():

    @case("plan", name, "before --resume", refused(says))
    def plan(bench: Bench, old: str = old, new: str = new) -> Ended:
        file = bench.home / "plan.yaml"
        bench.undisturbed()

        def mend() -> None:
            file.unlink()

        return refuses(bench, lambda: rewrite(file, old, new), mend)


FOLDER: dict[str, tuple[str, bytes | None, str]] = {
    "the run folder's plan is garbage": ("plan.yaml", b"[\xff", "is damaged"),
    "the run folder's plan is gone": ("plan.yaml", None, "no run to resume"),
    "the run folder's mark is garbage": (".run", b"{", "is damaged"),
    "the run folder's mark is gone": (".run", None, "no run to resume"),
}
for name, (file, content, says) in FOLDER.items():

    @case("run folder", name, "before --resume", refused(says))
    def run_folder(bench: Bench, file: str = file, content: bytes | None = content) -> Ended:
        path, kept = bench.run / file, bench.home / "kept.part"

        def spoil() -> None:
            path.rename(kept)
            if content is not None:
                path.write_bytes(content)

        return refuses(bench, spoil, lambda: kept.replace(path))


@case("run folder", "the last line of metrics.jsonl is torn", "before --resume", Promise())
def torn(bench: Bench) -> Ended:
    stopped(bench)
    with (bench.run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "image-te')
    return bench.resume()


@case("run folder", "metrics.jsonl is gone", "before --resume", Promise(
    0, "some metrics before the checkpoint are lost", same=False, more="the space is the undisturbed run's"))  # fmt: skip
def metrics_gone(bench: Bench) -> Ended:
    stopped(bench)
    (bench.run / "metrics.jsonl").unlink()
    ended = bench.resume()
    weights = [
        (folder / "space/model.safetensors").read_bytes() for folder in (bench.run, bench.undisturbed())
    ]
    assert weights[0] == weights[1]
    return ended


@case("run folder", "a report and half a space lie in the run folder", "before --resume", Promise())
def leftovers(bench: Bench) -> Ended:
    stopped(bench)
    (bench.run / "report.json").write_text('{"tasks": ')
    (bench.run / ".space.new").mkdir()
    (bench.run / ".space.new" / "config.json").write_text("{")
    return bench.resume()


@case("run folder", "the space of a stage is gone", "before --resume", Promise())
def space_gone(bench: Bench) -> Ended:
    bench.undisturbed()
    bench.align(at=kill("step", count=14)).end()
    shutil.rmtree(bench.run / "space")
    return bench.resume()


@case("run folder", "something that is no run lies there", "from the start", Promise(
    2, "exists and is no run folder.*--out", resumes=False, same=False, more="nothing was changed"))  # fmt: skip
def foreign(bench: Bench) -> Ended:
    bench.run.mkdir()
    (bench.run / "thesis.tex").write_text("years of work")
    ended = bench.align().end()
    assert listing(bench.run) == {"thesis.tex": b"years of work"}
    return ended
