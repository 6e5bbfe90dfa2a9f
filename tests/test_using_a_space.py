"""Every code sample of docs/using-a-space.md runs, in order, on a space trained here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from copy import deepcopy
from pathlib import Path
from typing import Any

import mlflow
import modalign
import pyarrow.parquet as pq
import pytest

from .conftest import TINY
from .local_hub import LocalHub
from .test_mlflow_model import _tracking, free_port, stop  # noqa: F401

PAGE = (Path(__file__).parents[1] / "docs" / "using-a-space.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")[1:]}


def samples(section: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


@pytest.fixture(scope="module")
def home(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``make demo`` leaves it, with a few files."""
    folder, before = tmp_path_factory.mktemp("home"), Path.cwd()
    stage = {"losses": {"infonce": 1.0}, "epochs": 1, "batch_size": 32, "lr": 3e-3}
    plan: dict[str, Any] = {
        "name": "demo",
        "data": {"table": str(digits), "split": "split", "label": "label"},
        "modalities": deepcopy(TINY),
        "space": {"dim": 16, "projection": {"name": "universal", "width": 16, "heads": 2, "hidden": 32}},
        "stages": [
            {"name": "image-text", "align": ["image", "text"], **stage},
            {"name": "add-audio", "align": ["audio", "text"], **stage},
        ],
        "tasks": [{"name": "retrieval", "from": "audio", "to": "image"}],
        "fabric": {"accelerator": "cpu"},
    }
    os.chdir(folder)
    try:
        modalign.align(plan)
    finally:
        os.chdir(before)
    for name, row in zip("ab", pq.read_table(digits).slice(0, 2).to_pylist(), strict=True):
        (folder / f"{name}.png").write_bytes(row["image"]["bytes"])
        (folder / f"{name}.wav").write_bytes(row["audio"]["bytes"])
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def run(section: str) -> dict[str, Any]:
    """The names that a section's samples, but for those that need a server, leave."""
    names: dict[str, Any] = {}
    for code in samples(section):
        if "127.0.0.1" not in code:
            exec(compile(code, f"using-a-space.md, {section}", "exec"), names)
    return names


def test_the_sections_are_those_tested_here() -> None:
    assert list(SECTIONS) == [
        "Load and embed", "Score", "MLflow", "Hugging Face", "sentence-transformers", "mteb",
    ]  # fmt: skip


def test_load_and_embed() -> None:
    names = run("Load and embed")
    assert names["words"].shape == (3, 16)
    assert names["pictures"].shape == (2, 16)


def test_score() -> None:
    names = run("Score")
    assert names["cosines"].shape == names["both"].shape == (2, 2)


def test_mlflow() -> None:
    names = run("MLflow")
    assert names["vectors"].shape == (2, 16)
    assert names["again"].modalities == names["space"].modalities


@pytest.mark.slow
def test_mlflow_serving() -> None:
    """After ``test_mlflow``, or by itself."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    modalign.mlflow.log_model(modalign.load("runs/demo/space"), registered_model_name="mine")
    mlflow.end_run()
    (console,) = (block for block in samples("MLflow", "console") if "serve" in block)
    (code,) = (block for block in samples("MLflow") if "127.0.0.1" in block)
    port = str(free_port())  # 5001 may be somebody else's
    setting, command = (line.removeprefix("$ ").replace("5001", port) for line in console.splitlines())
    name, _, value = setting.removeprefix("export ").partition("=")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)], start_new_session=True,
        env={**os.environ, "PATH": path, name: value, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.1)
        names: dict[str, Any] = {}
        exec(code.replace("5001", port), names)
        assert [len(vector) for vector in names["vectors"]] == [16, 16]
    finally:
        stop(server)


@pytest.mark.slow
def test_hugging_face(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    (code,) = samples("Hugging Face")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    with LocalHub() as hub:
        known = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path),
            "HF_TOKEN": "hf_local",
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env={**kept, **known}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert set(hub.files) == {"you/digits"}
    assert modalign.load("digits").about["license"] == "apache-2.0"


def test_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers", minversion="5.4")
    assert run("sentence-transformers")["vectors"].shape == (1, 16)


def test_mteb() -> None:
    pytest.importorskip("mteb", minversion="2")
    (result,) = run("mteb")["results"].task_results
    assert 0 <= result.scores["test"][0]["ndcg_at_10"] <= 1
