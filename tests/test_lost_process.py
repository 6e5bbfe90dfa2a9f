"""When one process of a run dies, hangs or is told to stop, all of them end, and the run can go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import modalign
import pytest

Plan = dict[str, Any]
LIMIT = 60
"""Seconds in which all must have ended; on a quiet machine it takes two."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def steps_logged(folder: str) -> int:
    try:
        return Path(folder, "metrics.jsonl").read_bytes().count(b'"lr"')
    except FileNotFoundError:
        return 0


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


class Group:
    """A run of two processes of its own process group."""

    def __init__(self, file: Path, *overrides: str) -> None:
        command = [sys.executable, "-m", "modalign.cli", "align", str(file), "--out", "two", *overrides]
        with Path("errors.txt").open("w") as errors:
            self.first = subprocess.Popen(
                [*command, "fabric.devices=2"], stderr=errors, env=environment(), start_new_session=True
            )
        until = time.monotonic() + 200
        while steps_logged("two") < 3:
            assert self.first.poll() is None, self.errors()
            assert time.monotonic() < until
            time.sleep(0.02)
        (self.second,) = set(alive(self.first.pid)) - {self.first.pid}

    def errors(self) -> str:
        return Path("errors.txt").read_text()

    def ended(self) -> int:
        """The first one's status, when the others have ended, too."""
        until = time.monotonic() + LIMIT
        status = self.first.wait(LIMIT)
        while alive(self.first.pid):
            assert time.monotonic() < until, "a process is left"
            time.sleep(0.05)
        assert "Traceback" not in self.errors()
        return status


@pytest.fixture
def start(plan: Plan, write_plan: Callable[..., Path], in_tmp: Path) -> Iterator[Callable[..., Group]]:
    plan["stages"][0] |= {"epochs": 30, "batch_size": 24}
    plan["checkpoint"] = {"every_steps": 2}
    file = write_plan(plan)
    groups: list[Group] = []

    def begin(*overrides: str) -> Group:
        groups.append(Group(file, *overrides))
        return groups[0]

    yield begin
    for left in alive(groups[0].first.pid) if groups else ():
        os.kill(left, signal.SIGKILL)


def goes_on(plan: Plan) -> None:
    modalign.align(plan, out="two", resume=True)
    lines = [json.loads(line) for line in Path("two/metrics.jsonl").read_text().splitlines()]
    seen = [line["step"] for line in lines if "lr" in line["metrics"]]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 150


def test_killed(start: Callable[..., Group], plan: Plan) -> None:
    group = start()
    os.kill(group.second, signal.SIGKILL)
    assert group.ended() == 1
    assert "process 1 of 2 was killed by SIGKILL; the run can go on" in group.errors()
    goes_on(plan)


@pytest.mark.slow
def test_the_first_killed(start: Callable[..., Group], plan: Plan) -> None:
    group = start("fabric.strategy=fsdp", "checkpoint.sharded=true")
    group.first.kill()
    assert group.ended() == -signal.SIGKILL
    assert "the process that started this one has ended; the run can go on" in group.errors()
    goes_on(plan)


@pytest.mark.slow
@pytest.mark.slow
def test_one_that_never_begins(plan: Plan, write_plan: Callable[..., Path], in_tmp: Path) -> None:
    script = """
import os, sys
if os.environ.get("LOCAL_RANK"):
    sys.exit(3)
from modalign.cli.main import main
sys.exit(main())
"""
    Path("script.py").write_text(script)
    command = [sys.executable, "script.py", "align", str(write_plan(plan)), "fabric.devices=2"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    assert "process 1 of 2 ended with status 3" in done.stderr


@pytest.mark.slow
def test_hanging(start: Callable[..., Group], plan: Plan) -> None:
    group = start("fabric.timeout=5")
    os.kill(group.second, signal.SIGSTOP)
    assert group.ended() == 1
    assert "process 0 lost the others" in group.errors()
    goes_on(plan)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["group", "first", "second"])
def test_told_to_stop(whom: str, start: Callable[..., Group], plan: Plan) -> None:
    group = start()
    if whom == "group":  # Ctrl-C in a terminal
        os.killpg(group.first.pid, signal.SIGINT)
    else:
        os.kill(group.first.pid if whom == "first" else group.second, signal.SIGTERM)
    assert group.ended() == 130
    goes_on(plan)


@pytest.mark.slow
def test_slurm_and_torchrun_start_the_command(
    plan: Plan, write_plan: Callable[..., Path], in_tmp: Path
) -> None:
    file = str(write_plan(plan))
    align = ["-m", "modalign.cli", "align", file, "fabric.devices=2"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [sys.executable, *launch, *align, "--out", "torchrun"], check=True, timeout=280, env=environment()
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    tasks = []
    for rank in ("0", "1"):
        slurm = {"NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "NODEID": "0", "JOB_ID": "77"}
        slurm |= {"PROCID": rank, "LOCALID": rank, "NODELIST": "localhost"}
        variables = {f"SLURM_{name}": value for name, value in slurm.items()}
        variables |= {"MASTER_PORT": port, "SLURM_JOB_NAME": "align"}
        command = [sys.executable, *align, "--out", "slurm"]
        tasks.append(subprocess.Popen(command, env=environment(**variables)))
    assert [task.wait(280) for task in tasks] == [0, 0]
    reports = [json.loads(Path(out, "report.json").read_text()) for out in ("torchrun", "slurm")]
    assert reports[0]["stages"][1]["loss"] == reports[1]["stages"][1]["loss"]
