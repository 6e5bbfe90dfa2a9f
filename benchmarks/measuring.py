"""What the benchmarks share: a fresh process per measurement, its peak memory, and what they ran on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

Result = dict[str, Any]


def fresh(
    script: str, arguments: Sequence[str], threads: int, python: str = sys.executable, seconds: float = 900
) -> Result:
    """What a script prints as JSON in its last line, run in a process of its own.

    A result of ``{"failed": reason}`` says why there is none.
    """
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [python, script, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **count, **offline}
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {seconds:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mb() -> float:
    """The most memory this process has ever held, in MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM"))
    return kilobytes / 1024


def installed(*packages: str) -> dict[str, str]:
    """The version of each package that is there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def heading(threads: int, *packages: str) -> str:
    """The machine, the versions and the load: the line above every table."""
    model = platform.processor() or platform.machine()
    if (about := Path("/proc/cpuinfo")).is_file():
        names = [row for row in about.read_text().splitlines() if row.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{k} {v}" for k, v in installed("torch", *packages).items())
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GB, {threads} thread{'s' * (threads > 1)}, "
        f"Python {platform.python_version()}, {versions}; load {os.getloadavg()[0]:.1f}"
    )


def print_ahead(what: str, ratios: dict[str, float], better: str = "below") -> None:
    """Who does better than what the ratios are to, in words: a peer that wins is said to.

    Inputs:
        ratios: by name, the other's number over the reference's.
        better: whether a number "below" or "above" the reference's is the better one.
    """
    ahead = {who: r for who, r in ratios.items() if (r < 0.995 if better == "below" else r > 1.005)}
    print(f"Ahead in {what}: {', '.join(f'{who} ({r:.2f})' for who, r in ahead.items()) or 'none'}.")


def print_row(*cells: object) -> None:
    """One row of a Markdown table, at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_head(*cells: str) -> None:
    """The head of a Markdown table."""
    print()
    print_row(*cells)
    print("|---" * len(cells) + "|", flush=True)
