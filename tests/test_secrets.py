"""Tokens and passwords of a run appear in nothing that it leaves behind, and in nothing that it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Plan = dict[str, Any]
WORD = "hunter2-Zx91"
ENVIRONMENT = {
    name: f"{WORD}-{name}"
    for name in (
        "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD",
    )
}  # fmt: skip


def leaks(folder: Path, word: bytes) -> list[str]:
    """Files that hold the word."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 10
    return sorted(str(p.relative_to(folder)) for p in files if word in p.read_bytes())


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "modalign.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=240)


def test_no_file_of_a_run_and_no_line_of_its_output_holds_a_secret(
    plan: Plan, write_plan: Callable[..., Path], tmp_path: Path
) -> None:
    """The environment's, the database's, and those of a server that does not answer."""
    for stage in plan["stages"]:
        stage["epochs"] = 1
    path = write_plan(plan)
    work = tmp_path / "work"
    work.mkdir()
    first = run(work, "align", str(path), f"track.uri=sqlite:///mlflow.db?password={WORD}", "--out", "here")
    assert first.returncode == 0, first.stderr.decode()[-3000:]
    second = run(work, "align", str(path), f"track.uri=http://ada:{WORD}@127.0.0.1:9", "--out", "there")
    assert second.returncode == 0, second.stderr.decode()[-3000:]
    assert any(work.glob("mlflow.db*"))
    shown = run(
        work, "eval", "here/space", str(path), f"track.uri=http://ada:{WORD}@127.0.0.1:9", "--out", "measured"
    )
    compared = run(work, "compare", "here", "there")
    for said in (first, second, shown, compared):
        assert WORD.encode() not in said.stdout + said.stderr
    assert leaks(work, WORD.encode()) == []
