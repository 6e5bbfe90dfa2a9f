"""Spaces, indexes and tables of embeddings: damaged, interrupted, in the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill, moment, refuse
from ..process import Ended
from .cache import halve

WRONG = Promise(2, "space .*(damaged|cannot be loaded|is not a space)", resumes=False, same=False)


def edit(**changes: object) -> Callable[[Path], object]:
    def edited(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edited


def head(path: Path) -> None:
    """A bit of the tensors' names and places."""
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a space's weights are cut in half": ("model.safetensors", halve),
    "a space's weights are empty": ("model.safetensors", lambda path: os.truncate(path, 0)),
    "a space's weights are gone": ("model.safetensors", Path.unlink),
    "a bit in the head of a space's weights is flipped": ("model.safetensors", head),
    "a space's weights claim to be terabytes": (
        "model.safetensors", lambda path: path.write_bytes(b"\xff" * 7 + b"\x0f" + b"{" * 99)
    ),
    "a space's config is cut in half": ("config.json", halve),
    "a space's config is a list": ("config.json", lambda path: path.write_text("[1, 2]")),
    "a space's config names another size": ("config.json", edit(dim=17)),
    "a space's config is of a newer format": ("config.json", edit(format=99)),
    "a space's config names an unknown projection": ("config.json", edit(projection="nothing")),
    "a space's config is gone": ("config.json", Path.unlink),
}  # fmt: skip
for name, (file, damage) in DAMAGE.items():
    wrong = Promise(2, "space .*format 99", resumes=False, same=False) if "newer" in name else WRONG

    @case("space", name, "before `modalign eval`", wrong)
    def damaged(bench: Bench, file: str = file, damage: Callable[[Path], object] = damage) -> Ended:
        space = bench.space()
        damage(space / file)
        bench.spoilt.add(space / file)
        bench.write_plan()
        return bench.start("eval", str(space), "plan.yaml").end()


@case("space", "a damaged space is to be extended (--from)", "before `modalign align`", Promise(
    2, "space .* is damaged", resumes=False, same=False, more="nothing was written"))  # fmt: skip
def start_from(bench: Bench) -> Ended:
    space = bench.space()
    halve(space / "model.safetensors")
    bench.spoilt.add(space / "model.safetensors")
    ended = bench.align("--from", str(space)).end()
    assert not bench.run.exists()
    return ended


# modalign embed ------------------------------------------------------------------------------------


def embed(bench: Bench, *more: str, at: dict | None = None) -> Ended:
    return bench.start(
        "embed", "space", "text", "--table", str(bench.data / "pairs.parquet"), "--out", "out/text.parquet",
        "--part-rows", "16", *more, at=at,
    ).end()  # fmt: skip


def embeds_after(bench: Bench, at: dict) -> Ended:
    """Something happens to it; gone on with, it writes what it would have."""
    bench.space()
    ended = embed(bench, at=at)
    assert not (bench.home / "out" / "text.parquet").exists()
    bench.again = lambda: embed(bench, "--resume")

    def equal() -> None:
        found = pq.read_table(bench.home / "out" / "text.parquet")
        assert sorted(path.name for path in (bench.home / "out").iterdir()) == ["text.parquet"]
        shutil.rmtree(bench.home / "out")
        shutil.rmtree(bench.cache, ignore_errors=True)
        assert embed(bench).status == 0
        assert pq.read_table(bench.home / "out" / "text.parquet").equals(found)

    bench.equal = equal
    return ended


SECOND = "modalign.training.embedding.embedder:Embedder.embed"
EMBEDS: dict[str, tuple[str, Promise, dict]] = {
    "killed while it encodes": ("second part", Promise(-9), kill("call", SECOND, 2)),
    "killed before a part gets its name": ("third part", Promise(-9), kill("os.rename", "*.parts/*.parquet", 3)),
    "killed before the file gets its name": ("the end", Promise(-9), kill("os.rename", "*/text.parquet")),
    "Ctrl-C": ("second part", Promise(130, "interrupted"), kill("call", SECOND, 2, number=signal.SIGINT)),
    "a part cannot be written (ENOSPC)": (
        "second part", Promise(1, "No space left on device"), refuse("os.rename", "*.parts/*.parquet", 2)
    ),
    "the file cannot be written (ENOSPC)": (
        "the end", Promise(1, "No space left on device"), refuse("os.rename", "*/text.parquet")
    ),
}  # fmt: skip
for name, (when, promise, at) in EMBEDS.items():

    @case("embed", name, f"`modalign embed`, {when}", promise)
    def embed_disturbed(bench: Bench, at: dict = at) -> Ended:
        return embeds_after(bench, at)


# modalign eval -------------------------------------------------------------------------------------


def evaluate(bench: Bench, at: dict | None = None) -> Ended:
    bench.write_plan()
    return bench.start("eval", "space", "plan.yaml", "--out", "eval", at=at).end()


@case("eval", "killed while the report is written", "`modalign eval`", Promise(-9))
def eval_killed(bench: Bench) -> Ended:
    bench.space()
    ended = evaluate(bench, kill("os.rename", "*/report.json"))
    bench.again = lambda: evaluate(bench)

    def equal() -> None:
        found = [
            json.loads((f / "report.json").read_text())["tasks"]
            for f in (bench.home / "eval", bench.undisturbed())
        ]
        assert found[0] == found[1]

    bench.equal = equal
    return ended


# modalign search -----------------------------------------------------------------------------------


def search(bench: Bench, *more: str, at: dict | None = None) -> Ended:
    return bench.start("search", "space", str(bench.data / "pictures"), "--index", "index", "--kind", "hnsw",
                       *more, at=at).end()  # fmt: skip


def ask(bench: Bench) -> Ended:
    return bench.start("search", "space", "--index", "index", "-q", "text=three", "-k", "3", "--json").end()


def indexed(bench: Bench) -> str:
    """An index, and what it answers."""
    bench.space()
    done = search(bench)
    assert done.status == 0, done.err
    answer = ask(bench)
    assert answer.status == 0, answer.err
    return answer.out


INDEX: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an index's vectors are cut in half": ("0.npy", halve),
    "an index's graph is cut in half": ("0.faiss", halve),
    "an index's list of items is cut in half": ("items.parquet", halve),
    "an index's list of items is gone": ("items.parquet", Path.unlink),
    "what an index says of itself is garbage": ("index.json", lambda path: path.write_text("{")),
}
for name, (file, damage) in INDEX.items():

    @case("index", name, "before `modalign search`", Promise(
        2, "index .* is damaged.*index again", resumes=False, same=False,
        more="made again it answers as before"))  # fmt: skip
    def index(bench: Bench, file: str = file, damage: Callable[[Path], object] = damage) -> Ended:
        answer = indexed(bench)
        damage(bench.home / "index" / file)
        ended = ask(bench)
        shutil.rmtree(bench.home / "index")
        assert search(bench).status == 0
        assert ask(bench).out == answer
        return ended


MOMENTS = {
    "killed while an index is written": kill("open", "*.index.new.*/index.json"),
    "killed before an index is moved into place": kill("os.rename", "*/index", 1),
}
for name, at in MOMENTS.items():

    @case("index", name, "`modalign search` over more data", Promise(
        -9, resumes=False, same=False, more="the old index answers; the same command then finishes it"))  # fmt: skip
    def index_killed(bench: Bench, at: dict = at) -> Ended:
        answer = indexed(bench)
        ended = search(bench, str(bench.data / "pairs.parquet"), at=at)
        assert ask(bench).out == answer
        assert search(bench, str(bench.data / "pairs.parquet")).status == 0
        assert ask(bench).status == 0
        return ended


@case("index", "an index is of another space", "before `modalign search`", Promise(
    2, "of another space", resumes=False, same=False))  # fmt: skip
def other_space(bench: Bench) -> Ended:
    indexed(bench)
    about = bench.home / "index" / "index.json"
    edit(space="0" * 64)(about)
    return ask(bench)


@case("index", "two processes write one index", "at the same time", Promise(
    2, "another process has written the index.*run this again", resumes=False, same=False))  # fmt: skip
def two_writers(bench: Bench) -> Ended:
    indexed(bench)
    more = str(bench.data / "pairs.parquet")
    running = bench.start(
        "search", "space", more, "--index", "index",
        at=moment("call", "modalign.search:save_index", do="wait", flag=str(bench.flag)),
    )  # fmt: skip
    bench.paused(running)
    assert search(bench, more).status == 0
    bench.go_on()
    return running.end()
