"""The run folder's ``metrics.jsonl``: the local source of truth for every metric."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricLog:
    """An append-only file of ``{"stage", "step", "time", "metrics"}``, one JSON object per line.

    Every line is handed to the operating system before ``append`` returns, so killing the process
    loses nothing. One process writes; any number may read.

    Inputs:
        path: the file; made, with its folder, if missing. A torn last line is cut off.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self._cut(self.path.stat().st_size)

    @property
    def position(self) -> int:
        """The file's length in bytes: what a checkpoint remembers and ``rewind`` takes."""
        return self._position

    def append(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write one record, stamped with the time in unix milliseconds.

        Inputs:
            metrics: anything ``float`` accepts; NaN and infinities are kept.
        """
        record = {
            "stage": stage,
            "step": int(step),
            "time": time.time_ns() // 1_000_000,
            "metrics": {name: _to_json(float(value)) for name, value in metrics.items()},
        }
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        written = 0
        while written < len(line):  # a raw write may be short, for instance on a full disk
            written += self._file.write(line[written:])
        self._position += len(line)

    def rewind(self, position: int) -> None:
        """Forget everything written after ``position``, so that steps can be taken again."""
        size = self.path.stat().st_size
        if size < position:
            warnings.warn(
                f"{self.path} holds {size} bytes, the checkpoint remembers {position}: some metrics "
                "before the checkpoint are lost",
                stacklevel=2,
            )
        self._cut(min(size, position))

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record so far, oldest first."""
        return read_metrics(self.path)

    def close(self) -> None:
        """Close the file; the log can still be read."""
        self._file.close()

    def _cut(self, position: int) -> None:
        """Shorten the file to the last complete line that ends at or before ``position``."""
        with self.path.open("rb") as file:
            while position > 0:
                start = max(0, position - 65536)
                file.seek(start)
                end = file.read(position - start).rfind(b"\n")
                if end >= 0:
                    position = start + end + 1
                    break
                position = start
        self._file.truncate(position)
        self._position = position


def read_metrics(path: Path | str) -> Iterator[dict[str, Any]]:
    """Every complete record of a ``metrics.jsonl``, oldest first; none if there is no such file."""
    position = 0
    while True:
        records, end = read_from(path, position)
        if end == position:
            return
        yield from records
        position = end


def read_from(path: Path | str, position: int, limit: int = 1_000_000) -> tuple[list[dict[str, Any]], int]:
    """The complete records from a byte offset on, and the offset after them.

    Inputs:
        position: 0 or an offset this function returned.
        limit: bytes to read at most, unless a single record is longer.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(position)
            lines = file.readlines(limit)
    except FileNotFoundError:
        return [], position
    if lines and not lines[-1].endswith(b"\n"):  # still being written
        lines.pop()
    records = [record for record in map(_from_line, lines) if record is not None]
    if len(records) < len(lines):
        warnings.warn(f"{path}: {len(lines) - len(records)} damaged lines are left out", stacklevel=2)
    return records, position + sum(map(len, lines))


def _from_line(line: bytes) -> dict[str, Any] | None:
    """A record as it was written; None if it is damaged."""
    try:
        record = json.loads(line)
        metrics = {name: float(value) for name, value in record["metrics"].items()}
        stage, step, time = str(record["stage"]), int(record["step"]), int(record["time"])
        return {**record, "stage": stage, "step": step, "time": time, "metrics": metrics}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _to_json(value: float) -> float | str:
    """JSON has no NaN and no infinity: those become their names."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
