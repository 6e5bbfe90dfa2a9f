"""Exact resume: killed at any moment, the run ends with the very bytes of the undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modalign
import pytest
from modalign.tasks.retrieval import Retrieval

Plan = dict[str, Any]
Write = Callable[..., Path]

DIE_IN_CHECKPOINT = """
import os, signal, sys
import modalign.training.checkpoint as checkpoint
write, count = checkpoint.os.fsync, 0
def fsync(number):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(number)
checkpoint.os.fsync = fsync
from modalign.cli.main import main
sys.exit(main())
"""


def start(*arguments: str, script: str | None = None) -> subprocess.Popen[bytes]:
    command = ["-c", script] if script else ["-m", "modalign.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command, *arguments], stderr=subprocess.PIPE, env=environment)


def steps_logged(folder: Path) -> int:
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b'"lr"')
    except FileNotFoundError:
        return 0


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def mlflow_points(uri: str) -> tuple[list[Any], dict[str, list[tuple[int, float]]]]:
    """The runs, and every metric of every run as (step, value)."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = list(client.search_runs(experiments))
    points = {
        f"{run.info.run_name} {key}": [
            (m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)
        ]
        for run in runs
        for key in run.data.metrics
    }
    return runs, points


@pytest.fixture
def long_plan(plan: Plan, tmp_path: Path) -> Plan:
    for stage in plan["stages"]:
        stage |= {"epochs": 12, "batch_size": 16}
        stage["select"] = {"task": "retrieval:image->text"}
    plan["stages"][1]["accumulate"] = 2
    plan["space"]["projection"]["dropout"] = 0.2
    plan["modalities"]["image"]["augment"] = True
    plan["checkpoint"] = {"every_steps": 4, "keep": 3}
    plan["track"] = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    return plan


def test_killed_five_times(
    long_plan: Plan, write_plan: Write, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(write_plan(long_plan))
    finish(start("align", file, "--out", "whole", f"track.uri=sqlite:///{in_tmp}/whole.db"))
    monkeypatch.setenv("MODALIGN_CACHE", str(in_tmp / "another-cache"))
    folder = Path("killed")
    total = steps_logged(Path("whole"))
    seed = random.randrange(10**6)
    print("seed", seed)  # shown when the test fails
    moments = sorted(random.Random(seed).sample(range(1, total), 4))
    for i, moment in enumerate(moments):
        process = start("align", file, "--out", "killed", *(["--resume"] if i else []))
        while steps_logged(folder) < moment and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    dying = start("align", file, "--out", "killed", "--resume", script=DIE_IN_CHECKPOINT)
    dying.wait(timeout=120)
    assert dying.returncode in (-signal.SIGKILL, 0)  # 0 only if a single checkpoint was left to be written
    finish(start("align", file, "--out", "killed", "--resume"))

    whole, killed = (Path(f, "space", "model.safetensors").read_bytes() for f in ("whole", "killed"))
    assert whole == killed

    def steps(name: str) -> list[tuple[Any, ...]]:
        records = [json.loads(line) for line in Path(name, "metrics.jsonl").read_text().splitlines()]
        return [(r["stage"], r["step"], r["metrics"].get("loss"), r["metrics"].get("lr")) for r in records]

    assert steps("whole") == steps("killed")
    runs, points = mlflow_points(f"sqlite:///{in_tmp}/mlflow.db")
    assert Counter(run.info.run_name for run in runs) == {"tiny": 1, "image-text": 1, "add-audio": 1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    _, expected = mlflow_points(f"sqlite:///{in_tmp}/whole.db")
    for key, values in expected.items():
        if "system/" in key or "seconds" in key or "second" in key:
            continue
        assert sorted(points[key]) == sorted(values), key
    for key, values in points.items():
        assert len({step for step, _ in values}) == len(values), f"{key}: a step twice"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_politely(number: int, long_plan: Plan, write_plan: Write, in_tmp: Path) -> None:
    file = str(write_plan(long_plan))
    process = start("align", file)
    while steps_logged(Path("runs/tiny")) < 10:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    stopped = steps_logged(Path("runs/tiny"))
    runs, _ = mlflow_points(f"sqlite:///{in_tmp}/mlflow.db")
    assert {run.info.status for run in runs} == {"KILLED"}
    finish(start("align", file, "--resume"))
    lines = Path("runs/tiny/metrics.jsonl").read_text().splitlines()
    seen = [json.loads(line)["step"] for line in lines if '"lr"' in line]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > stopped
    runs, _ = mlflow_points(f"sqlite:///{in_tmp}/mlflow.db")
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_failed_run_is_marked(plan: Plan, write_plan: Write, in_tmp: Path, digits: Path) -> None:
    plan["track"] = {"uri": f"sqlite:///{in_tmp}/mlflow.db"}
    plan["stages"][0] |= {"lr": 1e30, "clip": None, "epochs": 20}
    plan["max_nonfinite"] = 2
    process = start("align", str(write_plan(plan)))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors.decode()
    assert b"max_nonfinite" in errors
    runs, _ = mlflow_points(f"sqlite:///{in_tmp}/mlflow.db")
    assert {run.info.status for run in runs} == {"FAILED"}


def test_a_task_that_raises_leaves_the_space(
    plan: Plan, write_plan: Write, in_tmp: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("boom in a task")

    with monkeypatch.context() as patch:
        patch.setattr(Retrieval, "run", broken)
        with pytest.raises(RuntimeError, match="boom"):
            modalign.align(write_plan(plan), out="run")
    space = modalign.load("run/space")
    assert space.modalities == ("image", "text")
    assert len(space.embed("text", ["one", "two"])) == 2
    modalign.align(write_plan(plan), out="run", resume=True)
    modalign.align(write_plan(plan), out="undisturbed")
    weights = [Path(out, "space/model.safetensors").read_bytes() for out in ("run", "undisturbed")]
    assert weights[0] == weights[1]


def test_resuming_a_finished_run_changes_nothing(plan: Plan, write_plan: Write, in_tmp: Path) -> None:
    file = write_plan(plan)
    modalign.align(file)
    before = {p: p.read_bytes() for p in Path("runs/tiny/space").iterdir()}
    report = json.loads(Path("runs/tiny/report.json").read_text())
    modalign.align(file, resume=True)
    assert {p: p.read_bytes() for p in Path("runs/tiny/space").iterdir()} == before
    assert json.loads(Path("runs/tiny/report.json").read_text()) == report


def test_two_runs_cannot_share_a_folder(long_plan: Plan, write_plan: Write, in_tmp: Path) -> None:
    from modalign.cli.main import main

    file = str(write_plan(long_plan))
    process = start("align", file)
    while steps_logged(Path("runs/tiny")) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    assert main(["align", file]) == 2
    process.kill()
    process.wait()
