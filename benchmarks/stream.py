"""Millions of rows streamed from shards: memory, exactly once, killed and resumed in the middle of an epoch."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BATCH, GROUP = 4096, 2000


def make_shards(folder: Path, rows: int, shards: int) -> None:
    """Parquet shards of numbers and their last digits as two texts."""
    for i, part in enumerate(np.array_split(np.arange(rows), shards)):
        table = pa.table({"text": [f"row {n}" for n in part], "other": [f"{n % 1000:03d}" for n in part]})
        pq.write_table(table, folder / f"part-{i:04d}.parquet", row_group_size=GROUP)


def plan(folder: Path) -> dict[str, Any]:
    encoder = {"name": "char-cnn", "width": 8, "layers": 1}
    return {
        "name": "stream",
        "data": {"table": str(folder / "part-*.parquet")},
        "modalities": {"text": {"encoder": encoder}, "other": {"encoder": encoder}},
        "space": {"dim": 8, "projection": "mean", "alignment": "linear"},
        "stages": [
            {
                "name": "all", "align": ["text", "other"], "losses": {"alignment": 1.0},
                "epochs": 1, "batch_size": BATCH,
            }
        ],
        "track": {"uri": None},
        "checkpoint": {"every_steps": 50},
    }  # fmt: skip


def train(folder: Path, rows: int, resume: bool) -> None:
    """The run, which notes which row came at which position, and its own memory."""
    import modalign
    from modalign.training import loop
    from modalign.training.context import Context

    seen = np.memmap(folder / "seen.i64", dtype=np.int64, mode="r+", shape=(rows,))
    made = loop.batches
    at = {"row": 0}

    def batches(job: Any, epoch: int, first: int) -> Any:
        for number, batch in enumerate(made(job, epoch, first), first):
            place = slice(number * BATCH, number * BATCH + len(batch.rows))
            before = seen[place]
            if not np.isin(before, [-1]).all() and not np.array_equal(before, batch.rows):
                raise SystemExit(f"batch {number} holds other rows than before the kill")
            seen[place] = batch.rows
            at["row"] = place.stop
            yield batch

    record = Context.record

    def note(run: Context, stage: str, metrics: dict[str, float]) -> None:
        record(run, stage, metrics)
        if "lr" in metrics and run.step % 20 == 0:
            status = Path("/proc/self/status").read_text()
            rss = int(status.split("RssAnon:")[1].split()[0]) / 1024  # without the notes, which are mapped
            with (folder / "memory.jsonl").open("a") as file:
                file.write(json.dumps({"step": run.step, "row": at["row"], "mb": rss}) + "\n")

    loop.batches = batches
    Context.record = note  # type: ignore[method-assign]
    modalign.align(plan(folder), out=folder / "run", resume=resume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="200,000 rows")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    rows = 200_000 if given.quick else given.rows
    if given.train:
        train(given.train, rows, given.resume)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        make_shards(folder, rows, given.shards)
        size = sum(f.stat().st_size for f in folder.glob("*.parquet")) / 2**20
        print(f"{rows:,} rows in {given.shards} shards, {size:.0f} MB, {time.perf_counter() - started:.0f} s")
        np.full(rows, -1, dtype=np.int64).tofile(folder / "seen.i64")
        command = [sys.executable, __file__, "--rows", str(rows), "--train", str(folder)]
        begun = time.perf_counter()
        child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        memory = folder / "memory.jsonl"
        while not memory.is_file() or json.loads(memory.read_text().splitlines()[-1])["row"] < 0.4 * rows:
            if child.poll() is not None:
                raise SystemExit(f"the run ended with status {child.returncode}")
            time.sleep(0.2)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        killed = time.perf_counter() - begun
        noted = len(memory.read_text().splitlines())
        subprocess.run([*command, "--resume"], check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        seen = np.fromfile(folder / "seen.i64", dtype=np.int64)
        once = np.array_equal(np.sort(seen), np.arange(rows))
        points = [json.loads(line) for line in memory.read_text().splitlines()]
        steps = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        train_ = [s for s in steps if "lr" in s["metrics"]]
        print(
            f"killed after {killed:.0f} s at row {points[noted - 1]['row']:,}; resumed; {seconds:.0f} s in all"
        )
        print(f"steps {len(train_):,}, each once: {len({s['step'] for s in train_}) == len(train_)}")
        print(f"every row exactly once: {once}")
        rate = np.median([s["metrics"]["samples_per_second"] for s in train_])
        print(f"median rows per second: {rate:,.0f}\n")
        print("| process | row | anonymous resident MB |\n|---|---|---|")
        for process, part in (("first", points[:noted]), ("resumed", points[noted:])):
            for point in part[:: max(1, len(part) // 5)] + part[-1:]:
                print(f"| {process} | {point['row']:,} | {point['mb']:.0f} |")
        if not once:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
