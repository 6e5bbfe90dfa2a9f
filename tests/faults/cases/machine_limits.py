"""Memory, open files and threads run out; the clock jumps."""

from __future__ import annotations

import os
import time
from typing import Any

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill, moment
from ..process import Ended

HALVED = Promise(0, "out of memory with .* going on with .*chunk_size", same=False)


def large(bench: Bench) -> None:
    """Pictures so large that memory for them can run out on its own."""
    bench.plan["modalities"]["image"]["encoder"] |= {"size": 128, "patch": 16, "width": 64}
    bench.plan["stages"] = bench.plan["stages"][:1]
    bench.plan["stages"][0] |= {"batch_size": 48, "epochs": 3}
    del bench.plan["modalities"]["audio"], bench.plan["tasks"][1]


def tight(bench: Bench, room: int) -> Ended:
    at = moment("call", "modalign.training.loop:Trainer.run", do="limit_memory", room=room)
    return bench.align(at=at).end()


FORWARD = "modalign_image.small_vit:SmallViT.forward"


@case("memory", "an encoder has no memory for a whole batch (MemoryError)", "step 3", HALVED)
def half(bench: Bench) -> Ended:
    at = moment("call", FORWARD, 3, do="raise_error", name="MemoryError", text="no room")
    return bench.align(at=at).end()


@case("memory", "oneDNN has no memory for a whole batch", "step 3", HALVED)
def half_of_onednn(bench: Bench) -> Ended:
    text = "could not create a primitive"
    return bench.align(at=moment("call", FORWARD, 3, do="raise_error", name="RuntimeError", text=text)).end()


@case("memory", "memory for less than one row is left (RLIMIT_AS)", "before step 1", Promise(
    1, "memory|MemoryError|could not create a primitive", same=False))  # fmt: skip
def none(bench: Bench) -> Ended:
    large(bench)
    bench.plan["modalities"]["image"]["encoder"] |= {"size": 512, "patch": 64}
    bench.plan["stages"][0] |= {"batch_size": 8, "epochs": 1}
    return tight(bench, 12 << 20)


@case(
    "memory",
    "memory runs out while a checkpoint is written",
    "third checkpoint",
    Promise(1, "MemoryError.*--resume"),
)
def checkpoint(bench: Bench) -> Ended:
    at = moment("call", "torch:save", 3, do="raise_error", name="MemoryError", text="no room")
    return bench.align(at=at).end()


@case(
    "memory", "memory runs out in the thread that loads", "the 4th batch", Promise(1, "MemoryError.*--resume")
)
def thread(bench: Bench) -> Ended:
    at = moment(
        "call",
        "modalign.training.reader:Reader.load",
        4,
        do="raise_error",
        name="MemoryError",
        text="no room",
    )
    return bench.align(at=at).end()


@case("open files", "no more than 12 files may be open (RLIMIT_NOFILE)", "from the start", Promise(0))
def few_files(bench: Bench) -> Ended:
    return bench.align(inside={"limits": {"RLIMIT_NOFILE": 12}}).end()


@case(
    "open files",
    "no file can be opened any more",
    "after step 5",
    Promise(1, "Too many open files.*--resume"),
)
def no_files(bench: Bench) -> Ended:
    return bench.align(at=moment("step", count=5, do="limit", name="RLIMIT_NOFILE", value=3)).end()


@case(
    "threads",
    "no thread can be started any more",
    "second epoch",
    Promise(1, "can't start new thread.*--resume"),
)
def no_threads(bench: Bench) -> Ended:
    at = moment(
        "call",
        "threading:Thread.start",
        2,
        do="raise_error",
        name="RuntimeError",
        text="can't start new thread",
    )
    return bench.align(at=at).end()


JUMPS: dict[str, float] = {
    "the clock jumps back by an hour": -3600.0,
    "the clock jumps forward by a day": 86400.0,
    "the clock jumps to 1970": -time.time() + 3.0,
    "the clock jumps to 2038 and beyond": 0x80000000 - time.time(),
}


def jump(seconds: float, count: int = 5) -> dict[str, Any]:
    return moment("step", count=count, do="shift_clock", seconds=seconds)


for name, seconds in JUMPS.items():

    @case("clock", name, "after step 5", Promise())
    def jumps(bench: Bench, seconds: float = seconds) -> Ended:
        return bench.align(at=jump(seconds)).end()


@case("clock", "killed, and the clock is a day behind", "at --resume", Promise(-9))
def behind(bench: Bench) -> Ended:
    ended = bench.align(at=kill("step", count=5)).end()
    at = moment("call", "modalign.training.run:latest_checkpoint", do="shift_clock", seconds=-86400.0)
    bench.again = lambda: bench.align("--resume", at=at).end()
    return ended


@case(
    "clock",
    "the clock jumps back while MLflow is told",
    "after step 5",
    Promise(more="each step is in MLflow once"),
)
def tracked(bench: Bench) -> Ended:
    from .tracking import Store

    store = Store(bench)
    ended = bench.align(at=jump(-3600.0)).end()
    store.check_complete()
    return ended


@case("clock", "every file's time lies in the future", "before --resume", Promise())
def future(bench: Bench) -> Ended:
    bench.undisturbed()
    bench.own_data()
    bench.align(at=kill("step", count=5)).end()
    for path in bench.home.rglob("*"):
        os.utime(path, (time.time() + 1e8, time.time() + 1e8), follow_symlinks=False)
    return bench.resume()
