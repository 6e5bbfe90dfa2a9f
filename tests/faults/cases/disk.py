"""Disks that are full, refuse, or are unplugged."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill, moment, refuse
from ..machine import mount, unmount
from ..process import Ended

FULL = Promise(1, "No space left on device.*--resume")
REFUSED = Promise(1, "{}.*--resume")


def small_disk(bench: Bench, megabytes: int = 24) -> Path:
    """A file system of its own below the case's folder."""
    disk = bench.home / "disk"
    disk.mkdir()
    assert mount("tmpfs", disk, "-t", "tmpfs", "-o", f"size={megabytes}m")
    bench.cleanup.append(lambda: unmount(disk))
    return disk


def fill(disk: Path) -> Callable[[], None]:
    """Leave no byte free; returns what frees it again."""
    filler = disk / "filler.part"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return filler.unlink


def filled_at(bench: Bench, at: dict[str, Any], disk: Path, *more: str) -> Ended:
    """Run until the moment, fill the disk, see it end; free the disk."""
    bench.undisturbed()
    running = bench.align(*more, at=at)
    bench.paused(running)
    free = fill(disk)
    bench.go_on()
    ended = running.end()
    free()
    return ended


RUN_DISK = {
    "the run folder's disk fills up in mid-epoch": ("after step 5", "step", "*", 5),
    "the run folder's disk fills up while a space is written": ("end of stage 1", "open", "*/config.json", 1),
    "the run folder's disk fills up while the report is written": (
        "end of stage 2",
        "open",
        "*/.report.json.part",
        2,
    ),
}
for name, (when, event, path, count) in RUN_DISK.items():

    @case("disk full", name, when, FULL, needs="mount", quick="mid-epoch" in name)
    def run_disk(bench: Bench, event: str = event, path: str = path, count: int = count) -> Ended:
        disk = small_disk(bench)
        bench.run = disk / "run"
        return filled_at(bench, moment(event, path, count, do="wait", flag=str(bench.flag)), disk)


@case("disk full", "the run folder's disk is full from the start", "from the start", Promise(
    2, "No space left on device.*--out", resumes=False, more="the same command starts anew"), needs="mount")  # fmt: skip
def full_from_the_start(bench: Bench) -> Ended:
    bench.undisturbed()
    disk = small_disk(bench)
    bench.run = disk / "run"
    free = fill(disk)
    ended = bench.align().end()
    free()
    assert bench.align().end().status == 0
    return ended


@case(
    "disk full",
    "the feature cache's disk fills up",
    "while text is encoded",
    Promise(1, "No space left on device: the feature cache .*MODALIGN_CACHE.*--resume"),
    needs="mount",
)
def cache_disk(bench: Bench) -> Ended:
    disk = small_disk(bench)
    bench.cache = disk / "cache"
    at = moment("call", "modalign.training.reader:Reader.features", do="wait", flag=str(bench.flag))
    return filled_at(bench, at, disk)


@case("disk full", "MLflow's database is on a full disk", "after step 5", Promise(
    0, "MLflow", more="the missing part is sent by `--resume`"), needs="mount")  # fmt: skip
def tracking_disk(bench: Bench) -> Ended:
    from .tracking import Store

    disk = small_disk(bench)
    store = Store(bench, disk / "mlflow.db", away=True)
    ended = filled_at(bench, moment("step", count=5, do="wait", flag=str(bench.flag)), disk)
    store.resume()
    return ended


@case("file-size limit", "no file may be larger than 100 kB (RLIMIT_FSIZE)", "at the first checkpoint", Promise(
    1, "File too large.*--resume"))  # fmt: skip
def file_size(bench: Bench) -> Ended:
    bench.undisturbed()
    return bench.align(inside={"limits": {"RLIMIT_FSIZE": 100_000}}).end()


ERRORS = {
    "a checkpoint cannot be renamed (EIO)": ("third checkpoint", errno.EIO, "os.rename", "*/*.ckpt", 3),
    "a quota is exceeded (EDQUOT)": ("fourth checkpoint", errno.EDQUOT, "open", "*/checkpoints/*.part", 4),
    "a network file system is stale (ESTALE)": (
        "end of stage 1",
        errno.ESTALE,
        "os.mkdir",
        "*.space.new*",
        1,
    ),
    "a report cannot be written (EIO)": ("end of stage 2", errno.EIO, "os.rename", "*/report.json", 2),
    "an old checkpoint cannot be deleted (EPERM)": (
        "fourth checkpoint",
        errno.EPERM,
        "os.remove",
        "*.ckpt",
        1,
    ),
}
for name, (when, number, event, path, count) in ERRORS.items():

    @case("I/O error", name, when, Promise(1, f"{os.strerror(number)}.*--resume"))
    def io_error(
        bench: Bench, number: int = number, event: str = event, path: str = path, count: int = count
    ) -> Ended:
        return bench.align(at=refuse(event, path, count, number)).end()


@case("read-only", "the run folder becomes read-only", "after step 5", Promise(1, "Permission denied.*--resume"))  # fmt: skip
def read_only_run(bench: Bench) -> Ended:
    bench.undisturbed()
    running = bench.align(
        at=moment("step", count=5, do="wait", flag=str(bench.flag)), inside={"plain": True},
    )  # fmt: skip
    bench.paused(running)
    (bench.run / "checkpoints").chmod(0o555)
    bench.go_on()
    ended = running.end()
    (bench.run / "checkpoints").chmod(0o755)
    return ended


@case("read-only", "the folder for the run folder is read-only", "from the start", Promise(
    2, "cannot write.*Permission denied.*--out", resumes=False, same=False, more="nothing was written"))  # fmt: skip
def read_only_parent(bench: Bench) -> Ended:
    place = bench.home / "place"
    place.mkdir(mode=0o555)
    bench.run = place / "run"
    ended = bench.align(inside={"plain": True}).end()
    assert list(place.iterdir()) == []
    return ended


@case("read-only", "the feature cache is read-only", "from the start", Promise(
    1, "Permission denied: the feature cache .*MODALIGN_CACHE"))  # fmt: skip
def read_only_cache(bench: Bench) -> Ended:
    bench.undisturbed()
    bench.cache.mkdir(mode=0o555)
    ended = bench.align(inside={"plain": True}).end()
    bench.cache.chmod(0o755)
    return ended


def unplugged(bench: Bench, at: dict[str, Any]) -> Ended:
    bench.undisturbed()
    real, disk = bench.home / "real", bench.home / "disk"
    real.mkdir()
    disk.mkdir()
    assert mount(str(real), disk, "--bind")
    bench.cleanup.append(lambda: unmount(disk))
    bench.run = disk / "run"
    running = bench.align(at=at)
    bench.paused(running)
    unmount(disk)
    bench.go_on()
    ended = running.end()
    left = [str(path.relative_to(disk)) for path in disk.rglob("*") if path.name != ".run.lock"]
    assert not left, f"written to the empty mount point: {left}"
    assert mount(str(real), disk, "--bind")
    return ended


@case("disk gone", "the run folder's disk is unplugged, and plugged in again", "after step 5", Promise(
    1, "is gone.*--resume"), needs="mount")  # fmt: skip
def disk_unplugged(bench: Bench) -> Ended:
    return unplugged(bench, moment("step", count=5, do="wait", flag=str(bench.flag)))


@case("disk gone", "the run folder's disk is unplugged while the last tasks are measured", "end of stage 2", Promise(
    1, "is gone.*--resume"), needs="mount")  # fmt: skip
def disk_unplugged_late(bench: Bench) -> Ended:
    at = moment("call", "modalign.training.context:Context.measure", 2, do="wait", flag=str(bench.flag))
    return unplugged(bench, at)


@case("disk gone", "the run folder is deleted", "after step 5", Promise(
    1, "is gone", resumes=False, same=False, more="nothing is left where it was"))  # fmt: skip
def run_deleted(bench: Bench) -> Ended:
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    shutil.rmtree(bench.run)
    bench.go_on()
    ended = running.end()
    assert not bench.run.exists(), f"made again: {list(bench.run.rglob('*'))}"
    return ended


@case(
    "disk gone", "the run folder is renamed, and named back", "after step 5", Promise(1, "is gone.*--resume")
)
def run_renamed(bench: Bench) -> Ended:
    bench.undisturbed()
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    bench.run.rename(bench.home / "elsewhere")
    bench.go_on()
    ended = running.end()
    (bench.home / "elsewhere").rename(bench.run)
    return ended


@case("disk gone", "killed, and the run folder moved to another disk", "after step 5", Promise(-9))
def run_moved(bench: Bench) -> Ended:
    ended = bench.align(at=kill("step", count=5)).end()
    moved = bench.home / "moved" / "run"
    moved.parent.mkdir()
    bench.run.rename(moved)
    bench.run = moved
    return ended
