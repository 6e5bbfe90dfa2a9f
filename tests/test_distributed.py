"""Two processes with half the batch each train as one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

Plan = dict[str, Any]


def run(file: Path, out: str, *overrides: str) -> list[dict[str, Any]]:
    subprocess.run(
        [sys.executable, "-m", "modalign.cli", "align", str(file), "--out", out, *overrides],
        check=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [
        json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines() if '"lr"' in line
    ]


def test_two_processes_equal_one(
    plan: Plan, write_plan: Callable[..., Path], in_tmp: Path, digits: Path
) -> None:
    rows = pq.read_table(digits).slice(0, 60).to_pylist()
    for i, row in enumerate(rows):  # ragged batches with holes
        if i % 4 == 1:
            row["image"] = None
        row["split"] = "train" if i < 49 else "test"
    pq.write_table(pa.Table.from_pylist(rows), "odd.parquet")
    plan["data"]["table"] = str(in_tmp / "odd.parquet")
    plan["space"]["projection"]["dropout"] = 0.0
    plan["space"]["dropout"] = 0.0
    plan["modalities"]["audio"]["encoder"] |= {"dropout": 0.0, "blank": 0.0}
    plan["stages"][1]["align"] = ["audio", "text", "image"]
    for stage in plan["stages"]:
        stage["batch_size"] = 9
    file = write_plan(plan)
    one = run(file, "one")
    two = run(file, "two", "fabric.devices=2", "fabric.strategy=ddp")
    assert len(one) == len(two) > 10
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "grad_norm", "scale"):
            assert b["metrics"][key] == pytest.approx(a["metrics"][key], rel=2e-3, abs=1e-5), (a["step"], key)
    chunks = [f"stages.{i}.chunk_size=2" for i in (0, 1)]
    chunked = run(file, "chunked", "fabric.devices=2", "fabric.strategy=ddp", *chunks)
    for a, b in zip(two, chunked, strict=True):
        assert b["metrics"]["loss"] == pytest.approx(a["metrics"]["loss"], rel=2e-3, abs=1e-5)
        assert b["metrics"]["grad_norm"] == pytest.approx(a["metrics"]["grad_norm"], rel=2e-2, abs=1e-5)
    assert one[0]["metrics"]["loss"] == pytest.approx(two[0]["metrics"]["loss"], rel=1e-5)
    first, second = (load_file(f"{out}/space/model.safetensors") for out in ("one", "two"))
    assert first.keys() == second.keys()


@pytest.mark.slow
def test_killed_on_two_processes_and_resumed_on_four(
    plan: Plan, write_plan: Callable[..., Path], in_tmp: Path
) -> None:
    plan["space"]["projection"]["dropout"] = 0.0
    plan["space"]["dropout"] = 0.0
    plan["modalities"]["audio"]["encoder"] |= {"dropout": 0.0, "blank": 0.0}
    plan["checkpoint"] = {"every_steps": 2}
    file = write_plan(plan)
    alone = run(file, "alone")
    devices = ["fabric.devices=2", "fabric.strategy=ddp"]
    begun = subprocess.Popen(
        [sys.executable, "-m", "modalign.cli", "align", str(file), "--out", "many", *devices],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    metrics = Path("many/metrics.jsonl")
    deadline = time.monotonic() + 240
    while not metrics.is_file() or metrics.read_text().count('"lr"') < 5:
        assert begun.poll() is None and time.monotonic() < deadline  # noqa: PT018
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    many = run(file, "many", "--resume", "fabric.devices=4", "fabric.strategy=ddp")
    assert [m["step"] for m in many] == [m["step"] for m in alone]
    for a, b in zip(alone, many, strict=True):
        assert b["metrics"]["loss"] == pytest.approx(a["metrics"]["loss"], rel=2e-3, abs=1e-4), a["step"]
