"""The feature cache is cleared, damaged, in the way, or shared."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from ..bench import Bench
from ..case import Promise, case
from ..inside import moment, refuse
from ..process import Ended


def filled(bench: Bench) -> list[Path]:
    """A cache that an earlier run has filled; its files."""
    shutil.copytree(bench.undisturbed().parent / "cache", bench.cache)
    files = sorted(path for path in bench.cache.rglob("*") if path.is_file())
    assert any(path.suffix == ".bin" for path in files)
    return files


def flip(path: Path) -> None:
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit of the cached features is flipped": (".bin", flip),
    "the cached features are cut in half": (".bin", halve),
    "the cached features are gone, their index is there": (".bin", Path.unlink),
    "the cached features are empty": (".bin", lambda path: os.truncate(path, 0)),
    "the cache's index holds garbage": (".idx", lambda path: path.write_bytes(os.urandom(4000))),
    "a bit of the cache's index is flipped": (".idx", flip),
    "the cache's index is cut in half": (".idx", halve),
    "what the cache says of itself is garbage": (".json", lambda path: path.write_bytes(b"\xff{")),
}
ALONE = Promise(same=False, more="what is damaged is encoded again, alone: equal within rounding")

for name, (suffix, damage) in DAMAGE.items():

    @case("feature cache", name, "before the run", ALONE if name.startswith("a bit") else Promise())
    def damaged(bench: Bench, suffix: str = suffix, damage: Callable[[Path], object] = damage) -> Ended:
        for file in filled(bench):
            if file.suffix == suffix:
                damage(file)
                bench.spoilt.add(file)
        return bench.align().end()


def meanwhile(bench: Bench, do: Callable[[], object]) -> Ended:
    bench.undisturbed()
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    do()
    bench.go_on()
    return running.end()


@case("feature cache", "the cache is deleted", "after step 5", Promise())
def deleted(bench: Bench) -> Ended:
    return meanwhile(bench, lambda: shutil.rmtree(bench.cache))


@case("feature cache", "the cache is cleared by `modalign doctor --clear-cache`", "after step 5", Promise())
def cleared(bench: Bench) -> Ended:
    def clear() -> None:
        done = bench.start("doctor", "--clear-cache").end()
        assert done.status == 0, done.err
        assert not list(bench.cache.rglob("*.bin"))

    return meanwhile(bench, clear)


@case(
    "feature cache", "a file of the cache in use is cut to nothing", "after step 5", Promise(-signal.SIGBUS)
)
def cut_in_use(bench: Bench) -> Ended:
    """The pages of a mapped file are gone: the system ends the process, whatever it is written in."""

    def cut() -> None:
        for file in bench.cache.rglob("*.bin"):
            os.truncate(file, 0)

    return meanwhile(bench, cut)


@case("feature cache", "the cache's folder is a file", "from the start", Promise(1, "MODALIGN_CACHE"))
def is_a_file(bench: Bench) -> Ended:
    bench.undisturbed()
    bench.cache.write_text("no folder")
    ended = bench.align().end()
    bench.cache.unlink()
    return ended


@case("feature cache", "reading the cache fails (EIO)", "in the second run", Promise(1, "Input/output error"))
def unreadable(bench: Bench) -> Ended:
    filled(bench)
    return bench.align(at=refuse("open", "*/features/*.idx", 1, 5, writing=False)).end()


@case("feature cache", "two runs fill one cache at the same time", "from the start", Promise())
def two_writers(bench: Bench) -> Ended:
    bench.undisturbed()
    other = bench.align("--out", str(bench.home / "other"))
    ended = bench.align().end()
    assert other.end().status == 0
    return ended
