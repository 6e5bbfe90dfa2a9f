"""Whether a promise was kept, and what the folder looks like after a fault."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from modalign.training.checkpoint import read_checkpoint
from safetensors import safe_open

from .bench import Bench
from .case import Case
from .process import Ended

PARTS = re.compile(r"\.part$|\.new$|\.new\.|\.old$|\.damaged$|\.lock$|^\.(out|err)-")
"""Names that say of a file, or of a folder above it, that it is no finished artefact."""


@dataclass(frozen=True)
class Verdict:
    """What happened in a case; ``broken`` says which promise was not kept, or is empty."""

    status: int | None
    message: str
    broken: str = ""


def judge(case: Case, bench: Bench) -> Verdict:
    """Do it, and see."""
    ended: Ended | None = None
    try:
        ended = case.inject(bench)
        _ended_as_promised(case, ended)
        broken = artefacts_broken(bench)
        assert not broken, f"half-written: {broken}"
        if case.promise.status and case.promise.resumes:
            again = bench.again()
            assert again.status == 0, f"going on ended with {again.status}: {again.err}"
            assert "Traceback" not in again.err, again.err
            assert not again.orphans, f"orphans of the process that went on: {again.orphans}"
            broken = artefacts_broken(bench)
            assert not broken, f"half-written in the end: {broken}"
        if case.promise.same:
            bench.equal()
    except Exception as error:
        return Verdict(
            ended and ended.status, said(case, ended), " ".join(f"{type(error).__name__}: {error}".split())
        )
    finally:
        for undo in reversed(bench.cleanup):
            undo()
    return Verdict(ended.status, said(case, ended))


def _ended_as_promised(case: Case, ended: Ended) -> None:
    promise = case.promise
    assert ended.status == promise.status, f"ended with {ended.status}: {ended.err[-2000:]}"
    assert "Traceback" not in ended.err, f"a traceback: {ended.err[-2000:]}"
    assert re.search(promise.says, ended.err, re.DOTALL), (
        f"does not say {promise.says!r}: {ended.err[-2000:]}"
    )
    assert not ended.orphans, f"left processes behind: {', '.join(ended.orphans)}"


def said(case: Case, ended: Ended | None) -> str:
    """The line on stderr that the promise is about; for a failure without one, the last."""
    lines = [" ".join(line.split()) for line in (ended.err if ended else "").splitlines() if line.strip()]
    wanted = case.promise.says.split(".*")[0]
    found = [line for line in lines if wanted and re.search(wanted, line)]
    if found or not ended or ended.status == 0 or not lines:
        return found[0] if found else ""
    return lines[-1]


def artefacts_broken(bench: Bench) -> str:
    """The first file below the case's folder that claims to be whole and is not; empty if none."""
    for file in sorted(bench.home.rglob("*")):
        below = file.relative_to(bench.home)
        if not file.is_file() or file.is_symlink() or file in bench.spoilt:
            continue
        if any(PARTS.search(part) for part in below.parts) or below.parts[0] == "data":
            continue
        try:
            _read(file)
        except Exception as error:
            return f"{below} ({type(error).__name__}: {error})"
    return ""


def _read(file: Path) -> None:
    """Raises something if a file is not whole."""
    if file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".jsonl":
        lines = file.read_text(encoding="utf-8").split("\n")
        for line in lines[:-1]:  # a torn last line is known for one, and cut off
            json.loads(line)
    elif file.suffix == ".parquet":
        pq.read_table(file)
    elif file.suffix == ".safetensors":
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensors.get_tensor(name)
    elif file.suffix == ".ckpt":
        read_checkpoint(file)
    elif file.suffix == ".html":
        assert file.read_text(encoding="utf-8").rstrip().endswith("</html>")
    elif file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.reader(opened))
        assert all(len(row) == len(rows[0]) for row in rows)
    elif file.suffix == ".db" and file.stat().st_size:
        assert sqlite3.connect(file).execute("pragma integrity_check").fetchone() == ("ok",)
