"""Files that samples lie in: gone, swapped, forbidden, endless."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..bench import Bench
from ..case import Promise, case
from ..inside import moment
from ..process import Ended

NOTED = Promise(0, same=False, more="the sample is in `quarantine.csv` with its reason and counts as missing")
ROW = 7
"""Of split train."""


def check_noted(bench: Bench, reason: str = "") -> None:
    with (bench.run / "quarantine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["row"]), row["modality"]) for row in rows] == [(ROW, "image")], rows
    assert reason in rows[0]["reason"], rows[0]["reason"]


def link(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return make


def swap(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def swapped(path: Path) -> None:
        path.unlink()
        make(path)

    return swapped


def sparse(path: Path) -> None:
    os.truncate(path, 100 << 30)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a picture vanishes": (Path.unlink, "No such file"),
    "a picture is replaced by a folder": (swap(Path.mkdir), "no regular file"),
    "a picture is a broken symbolic link": (link("nowhere.png"), "No such file"),
    "a picture is a symbolic link to itself": (link(f"{ROW}.png"), "symbolic links"),
    "a picture is emptied": (lambda path: os.truncate(path, 0), "empty"),
    "a picture is cut in half": (lambda path: os.truncate(path, path.stat().st_size // 2), ""),
    "a picture is overwritten with noise": (lambda path: path.write_bytes(os.urandom(300)), ""),
    "a picture becomes text": (lambda path: path.write_text("<html>404 not found</html>"), ""),
    "a picture may not be read (mode 000)": (lambda path: path.chmod(0), "Permission denied"),
    "a picture is replaced by a named pipe": (swap(os.mkfifo), "no regular file"),
    "a picture is a link to an endless device": (link("/dev/zero"), "no regular file"),
    "a picture grows to 100 GB": (sparse, "larger than 1 GiB"),
}

for name, (change, reason) in CHANGES.items():

    @case("sample", name, "before it is first read", NOTED)
    def changed(bench: Bench, change: Callable[[Path], object] = change, reason: str = reason) -> Ended:
        pictures = bench.own_data() / "pictures"
        at = moment("call", "modalign.training.reader:Reader.load", do="wait", flag=str(bench.flag))
        running = bench.align(at=at, inside={"plain": True, "room": 4 << 30})
        bench.paused(running)
        change(pictures / f"{ROW}.png")
        bench.go_on()
        ended = running.end(20)
        if ended.status == 0:
            check_noted(bench, reason)
        return ended


@case("sample", "every picture vanishes, and is back for --resume", "before the first is read", Promise(
    1, "image samples of .* could not be read.*data.max_bad.*quarantine.csv"))  # fmt: skip
def all_vanish(bench: Bench) -> Ended:
    bench.undisturbed()
    pictures = bench.own_data() / "pictures"
    at = moment("call", "modalign.training.reader:Reader.load", do="wait", flag=str(bench.flag))
    running = bench.align(at=at)
    bench.paused(running)
    pictures.rename(bench.home / "away")
    bench.go_on()
    ended = running.end()
    (bench.home / "away").rename(pictures)
    bench.equal = lambda: (
        None
    )  # other pictures than once are in quarantine.csv; what is trained on is the same
    return ended


@case("sample", "every picture vanishes after all were read", "after step 5", Promise(0))
def vanish_late(bench: Bench) -> Ended:
    bench.plan["tasks"] = []
    bench.plan["stages"][0].pop("select")
    bench.undisturbed()
    pictures = bench.own_data() / "pictures"
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    shutil.rmtree(pictures)
    bench.go_on()
    return running.end()
