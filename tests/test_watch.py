"""A run's processes are looked after, in every run of a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TWICE = """
from modalign.training.fabric import build_fabric, launch
from modalign.training.plan import FabricPlan
from modalign.training.watch import watched

for number in (1, 2):
    fabric = build_fabric(FabricPlan(accelerator="cpu", devices=2, strategy="ddp"))
    with watched(fabric) as watch:
        launch(fabric, 60)
        fabric.barrier()
        watch.reason(1.0)
        if fabric.is_global_zero:
            print(f"run {number}: {len(watch.children)}")
        fabric.barrier()
        watch.leave()
"""


def test_every_run_looks_after_the_processes_that_the_first_one_started(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(TWICE)
    done = subprocess.run(
        [sys.executable, "twice.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.split("\n")[:2] == ["run 1: 1", "run 2: 1"], done.stderr[-3000:]
