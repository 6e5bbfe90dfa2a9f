"""The child process: makes inputs, has them read, and says in shared memory how far it is.

``python -m fuzz.worker READER SEED FIRST LAST FOLDER``; the parent is ``fuzz.watch``.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import resource
import shutil
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from .guard import Guard
from .reader import Files

HEAD = struct.Struct("<6qd")
"""Number, accepted, refused, bytes above the start, bytes of the input, whether it is ready; seconds of the slowest."""
ROOM = 16 << 20
MOST_MB = 1024
"""Memory one reader may take beyond what its imports and seeds took."""
BACKSTOP = 6 << 30
"""Addresses beyond the start, so that a failure does not take the machine along."""


def pack(files: Files) -> bytes:
    """Names and sizes as a line of JSON, then the contents."""
    sizes = json.dumps([[name, len(data)] for name, data in files.items()])
    return sizes.encode() + b"\n" + b"".join(files.values())


def unpack(data: bytes) -> Files:
    """What ``pack`` packed."""
    head, _, rest = data.partition(b"\n")
    files, at = {}, 0
    for name, size in json.loads(head):
        files[name] = rest[at : at + size]
        at += size
    return files


def status_kb(key: str) -> int:
    """A line of ``/proc/self/status`` in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def forget_peak() -> None:
    """Let ``VmHWM`` start again from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def main(name: str, seed: int, first: int, last: int, folder: Path) -> None:
    from .readers import READERS

    warnings.simplefilter("ignore")
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # of a child that crashed
    scratch.mkdir()
    os.chdir(scratch)
    bench = READERS[name](scratch)
    for i in range(len(bench.seeds)):  # what is imported late, is imported now
        bench.read(bench.seeds[i], scratch)
    guard = Guard(scratch)
    with (folder / "now").open("r+b") as file:
        shared = mmap.mmap(file.fileno(), HEAD.size + ROOM)
    gc.collect()
    forget_peak()
    start = status_kb("VmHWM")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BACKSTOP, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    accepted = refused = peak = 0
    slowest = 0.0
    for number in range(first, last):
        files = bench.input(name, seed, number)
        data = pack(files)[:ROOM]
        shared[HEAD.size : HEAD.size + len(data)] = data
        shared[: HEAD.size] = HEAD.pack(number, accepted, refused, peak, len(data), 1, slowest)
        begun = time.perf_counter()
        wrong: list[tuple[str, str]] = []
        guard.watching = True
        try:
            bench.read(files, scratch)
            accepted += 1
        except bench.refuses as error:
            refused += 1
            text = str(error)
            if not text.strip():
                wrong.append(("an empty message", type(error).__name__))
            elif len(text) > 20_000:
                wrong.append(("a message without end", text[:500]))
        except BaseException as error:
            wrong.append((_place(error), traceback.format_exc()[-3000:]))
        guard.watching = False
        slowest = max(slowest, time.perf_counter() - begun)
        wrong += [("forbidden: " + what, "") for what in guard.taken()]
        above = max(0, status_kb("VmHWM") - start) // 1024
        peak = max(peak, above)
        if above > MOST_MB:
            wrong.append((f"{above} MB", ""))
            forget_peak()
        for what, more in wrong:
            _tell(folder, number, seed, what, more)
    shared[: HEAD.size] = HEAD.pack(last, accepted, refused, peak, 0, 1, slowest)


def _place(error: BaseException) -> str:
    """The kind of an error and where it came up, to tell one failure from another."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "modalign" in f.filename] or frames
    last, end = ours[-1], frames[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno} ({Path(end.filename).name}:{end.lineno})"


def _tell(folder: Path, number: int, seed: int, what: str, more: str) -> None:
    record: dict[str, Any] = {"number": number, "seed": seed, "what": what, "more": more}
    with (folder / "failures.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    shared = (folder / "now").read_bytes()
    size = HEAD.unpack(shared[: HEAD.size])[4]
    kept = folder / f"input-{number}"
    if len(list(folder.glob("input-*"))) < 200:
        kept.write_bytes(shared[HEAD.size : HEAD.size + size])


def once(name: str, kept: Path) -> int:
    """Have a kept input read again, where a debugger can look: errors are not caught."""
    import tempfile

    from .readers import READERS

    files = unpack(kept.read_bytes())
    scratch = Path(tempfile.mkdtemp())
    os.environ["MODALIGN_CACHE"] = str(scratch / "cache")
    os.chdir(scratch)
    for file, data in files.items():
        print(f"{file}: {len(data)} bytes, {data[:300]!r}")
    bench = READERS[name](scratch)
    bench.read(files, scratch)
    return 0


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
