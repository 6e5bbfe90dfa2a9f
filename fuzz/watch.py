"""Runs one reader's fuzzer in child processes, and counts crashes and hangs as what they are: failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .worker import HEAD, ROOM

HANG = 5.0
"""Seconds of a processor that one input may take,"""
SLOW = {"score-kern": 20.0}
"""The same for readers whose whole files take seconds: music21 reads some thousand tokens in one."""
STUCK = 60.0
"""and of the clock, for what waits without working."""
MOST_RESTARTS = 200
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Outcome:
    """What came of one reader."""

    reader: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak_mb: int = 0
    failures: list[dict[str, object]] = field(default_factory=list)

    def kinds(self) -> dict[str, int]:
        """Failures by what went wrong."""
        found: dict[str, int] = {}
        for failure in self.failures:
            found[str(failure["what"])] = found.get(str(failure["what"]), 0) + 1
        return found


def fuzz(reader: str, inputs: int, seed: int, folder: Path, minutes: float = 1e9) -> Outcome:
    """Have one reader read so many inputs, or as many as fit into the time.

    Inputs:
        folder: of this reader alone; failing inputs are left there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcome, first = Outcome(reader), 0
    begun = time.monotonic()
    for restart in range(MOST_RESTARTS + 1):
        now = folder / "now"
        now.write_bytes(bytes(HEAD.size))
        os.truncate(now, HEAD.size + ROOM)
        command = [
            sys.executable,
            "-m",
            "fuzz.worker",
            reader,
            str(seed),
            str(first),
            str(inputs),
            str(folder),
        ]
        with (folder / "output").open("wb") as log:
            child = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=_environment(folder),
                cwd=Path(__file__).parents[1],
            )
        ended = _wait(child, now, SLOW.get(reader, HANG), begun + 60 * minutes)
        number, accepted, refused, peak, size, ready, slowest = HEAD.unpack(now.read_bytes()[: HEAD.size])
        outcome.accepted += accepted
        outcome.refused += refused
        outcome.peak_mb = max(outcome.peak_mb, peak)
        outcome.slowest = max(outcome.slowest, slowest)
        if ended in ("done", "time"):
            outcome.inputs = max(first, number)
            break
        said = (folder / "output").read_text(errors="replace")[-3000:]
        if not ready or restart == MOST_RESTARTS:
            raise RuntimeError(
                f"{reader}: its fuzzer does not start, or crashes all the time ({ended}):\n{said}"
            )
        kept = folder / f"input-{number}"
        kept.write_bytes(now.read_bytes()[HEAD.size : HEAD.size + size])
        with (folder / "failures.jsonl").open("a") as file:
            file.write(json.dumps({"number": number, "seed": seed, "what": ended, "more": said}) + "\n")
        first = outcome.inputs = number + 1
        if first >= inputs:
            break
    outcome.seconds = time.monotonic() - begun
    told = folder / "failures.jsonl"
    outcome.failures = [json.loads(line) for line in told.read_text().splitlines()] if told.is_file() else []
    return outcome


def _environment(folder: Path) -> dict[str, str]:
    scratch = str(folder / "scratch")
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "OMP_NUM_THREADS": "1",
        "MODALIGN_CACHE": f"{scratch}/cache",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{scratch}/home",
        "TMPDIR": scratch,
        "MPLCONFIGDIR": scratch,
    }


def _wait(child: subprocess.Popen[bytes], now: Path, hang: float, until: float) -> str:
    """``done``, ``time``, or what it died of."""
    number, used, since = -1, 0.0, time.monotonic()
    while True:
        try:
            code = child.wait(0.2)
            return "done" if code == 0 else f"crash: exit status {code}"
        except subprocess.TimeoutExpired:
            pass
        with now.open("rb") as file:
            head = HEAD.unpack(file.read(HEAD.size))
        if head[0] != number or not head[5]:
            number, used, since = head[0], _processor(child.pid), time.monotonic()
        ended = ""
        if time.monotonic() > until:
            ended = "time"
        elif _processor(child.pid) - used > hang or time.monotonic() - since > STUCK:
            ended = "hang"
        if ended:
            child.kill()
            child.wait()
            return ended


def _processor(process: int) -> float:
    """Seconds of a processor that a process has used."""
    try:
        parts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / TICKS
