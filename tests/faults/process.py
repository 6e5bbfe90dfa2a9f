"""Processes that a case starts, watches, signals and waits for: forked from a warm one, or cold."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds that any process of a case may take; a process that takes longer hangs."""
COLD = "import json, os, sys; from tests.faults.inside import arm; arm(json.loads(os.environ.pop('FAULTS'))); from modalign.cli.main import main; sys.exit(main())"


class Hangs(AssertionError):
    """A process neither ended nor did what was waited for."""


@dataclass
class Ended:
    """A process that is over.

    Inputs:
        status: as a shell knows it; minus a signal's number if that ended the process.
        orphans: processes it left behind.
    """

    status: int
    out: str
    err: str
    orphans: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Process:
    """One ``modalign`` command under way."""

    def __init__(self, number: int, files: tuple[Path, Path], mark: str, cold: Any = None) -> None:
        self.number, self.files, self.mark, self._cold = number, files, mark, cold
        self._begun = time.monotonic()

    def status(self, wait: float = 0.0) -> int | None:
        """The exit status; None while it runs.

        Inputs:
            wait: seconds to listen for it at most.
        """
        if self._cold is not None:
            found: int | None = self._cold.poll()
            time.sleep(wait if found is None else 0)
            return found
        warm().listen(wait)
        return warm().ended.get(self.number)

    def send(self, number: int, group: bool = False) -> None:
        """A signal, or one to every process of its group, as a terminal sends Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.number, number)

    def until(self, condition: Any, what: str = "") -> None:
        """Wait for something; it must come before the process ends."""
        while not condition():
            if self.status() is not None:
                raise AssertionError(
                    f"it ended before {what or condition}: {self.files[1].read_text(errors='replace')}"
                )
            if time.monotonic() - self._begun > PATIENCE:
                self.kill()
                raise Hangs(f"waited in vain for {what or condition}")
            time.sleep(0.005)

    def kill(self) -> None:
        self.send(signal.SIGKILL, group=True)
        while self.status(0.05) is None:
            pass

    def end(self, patience: float = PATIENCE) -> Ended:
        """Wait for its end, some seconds at most."""
        while (status := self.status(0.05)) is None:
            if time.monotonic() - self._begun > patience:
                self.kill()
                raise Hangs(f"it hangs; so far it said: {self.files[1].read_text(errors='replace')}")
        out, err = (f.read_text(errors="replace") if f.is_file() else "" for f in self.files)
        return Ended(status, out, err, self._orphans(), time.monotonic() - self._begun)

    def _orphans(self) -> list[str]:
        """Processes of its session, or with its mark in their environment, a moment after its end."""
        deadline = time.monotonic() + 5
        while (left := _alive(self.number, self.mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in left:
            os.kill(process, signal.SIGKILL)
        return [str(process) for process in left]


def _alive(session: int, mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            marked = mark.encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if fields[0] not in "ZX" and (int(fields[3]) == session or marked):
            found.append(int(folder.name))
    return found


class Warm:
    """The client's side of ``warm.py``."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        self.ended: dict[int, int] = {}
        self._started: list[int] = []
        self._ready = False
        assert self._server.stdout is not None
        os.set_blocking(self._server.stdout.fileno(), False)
        self._rest = b""
        atexit.register(self._server.kill)
        while not self._ready:
            assert self._server.poll() is None, "the warm process ended"
            self.listen(0.1)

    def listen(self, seconds: float) -> None:
        import select

        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            return
        self._rest += os.read(self._server.stdout.fileno(), 1 << 16)
        *lines, self._rest = self._rest.split(b"\n")
        for answer in map(json.loads, lines):
            if "started" in answer:
                self._started.append(answer["started"])
                self.ended.pop(answer["started"], None)  # numbers come again
            elif "process" in answer:
                self.ended[answer["process"]] = answer["status"]
            self._ready = True

    def start(self, request: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        while not self._started:
            assert self._server.poll() is None, "the warm process ended"
            self.listen(1)
        return self._started.pop()


_warm: Warm | None = None


def warm() -> Warm:
    global _warm
    if _warm is None:
        _warm = Warm()
    return _warm


def start(
    arguments: list[str],
    folder: Path,
    *,
    environment: dict[str, str] | None = None,
    inside: dict[str, Any] | None = None,
    stdin: str = os.devnull,
    stdout: str | None = None,
    stderr: str | None = None,
    cold: bool = False,
) -> Process:
    """Start ``modalign ARGUMENTS`` in a folder.

    Inputs:
        environment: beside this process's own.
        inside: as ``inside.arm`` takes it.
        stdin, stdout, stderr: files instead of those that ``Ended`` is read from.
        cold: in a fresh interpreter rather than in a fork of the warm one.
    """
    mark = uuid.uuid4().hex
    files = (folder / f".out-{mark}", folder / f".err-{mark}")
    names = {"stdin": stdin, "stdout": stdout or str(files[0]), "stderr": stderr or str(files[1])}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MODALIGN_", "MLFLOW_"))}
    whole = {**kept, "OMP_NUM_THREADS": "1", "FAULT_CASE": mark, **(environment or {})}
    if not cold:
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": whole,
            "inside": inside or {},
        }
        return Process(warm().start({**request, **names}), files, mark)
    whole["PYTHONPATH"] = os.pathsep.join(
        filter(None, [whole.get("PYTHONPATH"), os.environ.get("PYTHONPATH"), str(ROOT)])
    )
    how = ["-c", COLD] if inside else ["-m", "modalign.cli"]
    if inside:
        whole["FAULTS"] = json.dumps(inside)
    with open(names["stdin"]) as i, open(names["stdout"], "ab") as o, open(names["stderr"], "ab") as e:
        process = subprocess.Popen(
            [sys.executable, *how, *arguments],
            cwd=folder, env=whole, stdin=i, stdout=o, stderr=e, start_new_session=True,
        )  # fmt: skip
    return Process(process.pid, files, mark, process)
