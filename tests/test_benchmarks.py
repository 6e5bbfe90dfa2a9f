"""Every benchmark can be asked what it does, is part of ``make bench``, and the small ones run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
(NAMES,) = (
    line.split()[2:] for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("BENCHES")
)
APART = ("plain_", "read_")
"""Baselines and readers of single plugins, which need their data."""


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_does(name):
    asked = run(FOLDER / f"{name}.py", "--help")
    assert "--quick" in asked
    assert name in (FOLDER / "README.md").read_text()


def test_make_bench_runs_every_benchmark():
    scripts = {path.stem for path in FOLDER.glob("*.py") if "def main()" in path.read_text()}
    assert {name for name in scripts if not name.startswith(APART)} == set(NAMES)


@pytest.mark.parametrize("name", ["align_peers", "gpu_towers", "loader", "overhead", "third_modality"])
def test_asking_imports_nothing_heavy(name):
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import {name}; print(sorted(sys.modules))"
    loaded = set(re.findall(r"'(\w+)'", run("-c", code)))
    assert not loaded & {"torch", "modalign", "numpy", "pyarrow", "webdataset", "sentence_transformers"}


def test_recall_counts_both_directions(monkeypatch):
    views = module("two_views", monkeypatch)
    a = np.eye(4, dtype=np.float32)
    assert views.recall(a, a) == {"R@1": 1.0, "R@10": 1.0}
    b = a[[1, 0, 2, 3]]  # two of four are mixed up
    assert views.recall(a, b)["R@1"] == 0.5
    made = views.make(40)
    assert made["a"].shape == (40, 256)
    assert np.array_equal(made["b"], views.make(40)["b"])


@pytest.mark.parametrize("way", ["modalign, tar shards", "modalign, one Parquet table in memory"])
def test_our_loader_sees_every_sample(way, monkeypatch, tmp_path):
    pytest.importorskip("modalign_image")
    loader = module("loader", monkeypatch)
    loader.write(tmp_path, 50)
    found = loader.measure(way, 0, tmp_path)
    assert found["seen"] == 50
    assert found["later"] > 0


@pytest.mark.slow
def test_the_overhead_of_our_loop_is_measured():
    table = run(FOLDER / "overhead.py", "two linear heads", "--quick", "--rounds", "2")
    (row,) = re.findall(r"^\| two linear heads \| ([\d.]+) \| ([\d.]+) \| (-?[\d.]+) %", table, re.MULTILINE)
    bare, ours, share = map(float, row)
    assert ours == pytest.approx(bare * (1 + share / 100), abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["modalign", "bare PyTorch loop", "sentence-transformers"])
def test_peers_and_we_learn_the_same(who, monkeypatch, tmp_path):
    for name in ("sentence_transformers", "datasets") if who.startswith("sent") else ():
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    views = module("two_views", monkeypatch)
    views.write(views.make(2000), tmp_path)
    variables = {"MODALIGN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    printed = run(FOLDER / "align_peers.py", "--one", who, "--folder", tmp_path, **variables)
    found = json.loads(printed.splitlines()[-1])
    assert found["R@1"] > 0.95
    assert set(found["seconds"]) == {"import", "set-up", "training"}


@pytest.mark.slow
def test_a_third_modality_leaves_the_pair_as_it_is():
    table = run(FOLDER / "third_modality.py", "--rows", "400", "--epochs", "1")
    assert re.search(r"^\| adding c \|.*\| yes, every bit \|$", table, re.MULTILINE)
