"""What embedding took: rows per second, memory, hours of a core and a GPU."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PartCost:
    """What one part took.

    Inputs:
        rows: embeddings made.
        unreadable: cells that could not be read.
        seconds: from its first row to its last.
        read, encode: seconds of reading and of encoding; they overlap.
        memory: the worker's peak so far, in bytes.
        threads: of the worker.
        gpu: whether it had one.
        worker: host and process.
    """

    rows: int
    unreadable: int
    seconds: float
    read: float
    encode: float
    memory: int
    threads: int
    gpu: bool
    worker: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def peak_memory() -> int:
    """The most resident memory that this process has had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def total(costs: Iterable[PartCost]) -> dict[str, Any]:
    """All parts together, whichever run made them. Loading the space is not in it.

    Hours are of cores and GPUs held, busy or not.
    """
    rows = unreadable = memory = 0
    seconds = read = encode = cores = gpus = 0.0
    workers = set()
    for cost in costs:
        rows, unreadable, memory = rows + cost.rows, unreadable + cost.unreadable, max(memory, cost.memory)
        seconds, read, encode = seconds + cost.seconds, read + cost.read, encode + cost.encode
        cores, gpus = cores + cost.seconds * cost.threads, gpus + cost.seconds * cost.gpu
        workers.add(cost.worker)
    per_million = 1e6 / 3600 / rows if rows else 0.0
    return {
        "rows": rows,
        "unreadable": unreadable,
        "workers": len(workers),
        "worker_seconds": round(seconds, 3),
        "rows_per_second_per_worker": round(rows / seconds, 2) if seconds else 0.0,
        "read_share": round(read / (read + encode), 4) if read + encode else 0.0,
        "peak_memory": memory,
        "core_hours_per_million": round(cores * per_million, 4),
        "gpu_hours_per_million": round(gpus * per_million, 4),
    }


def in_words(cost: dict[str, Any]) -> str:
    """The same for people, on one line."""
    text = (
        f"{cost['seconds']:.1f} s, {cost['rows_per_second_per_worker']:.4g} rows/s per worker, "
        f"{cost['read_share']:.0%} of the work reading, peak memory {cost['peak_memory'] / 2**20:.0f} MiB "
        f"per worker; a million rows: {cost['core_hours_per_million']:.2g} core-hours"
    )
    gpu = cost["gpu_hours_per_million"]
    return f"{text}, {gpu:.2g} GPU-hours" if gpu else text
