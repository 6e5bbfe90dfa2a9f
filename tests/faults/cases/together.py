"""Several processes: of one run, or of several that want the same folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ..bench import Bench, assert_same
from ..case import Promise, case
from ..inside import kill, moment
from ..process import Ended, Process

TWO = ("fabric.devices=2", "fabric.strategy=ddp")


def held(bench: Bench) -> Process:
    """A run that waits after its fifth step."""
    bench.undisturbed()
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    return running


def ends_equal(bench: Bench, running: Process) -> None:
    bench.go_on()
    assert running.end().status == 0


BUSY = Promise(2, "another run is writing .*wait for it, or choose another folder with --out", resumes=False,
               more="the first run is not disturbed")  # fmt: skip


@case("two runs", "a second run into the same folder", "after the first one's step 5", BUSY)
def second(bench: Bench) -> Ended:
    running = held(bench)
    ended = bench.align().end()
    ends_equal(bench, running)
    return ended


@case("two runs", "--resume of a run that is still running", "after step 5", BUSY)
def resumed_while_running(bench: Bench) -> Ended:
    running = held(bench)
    ended = bench.align("--resume").end()
    ends_equal(bench, running)
    return ended


@case(
    "two runs",
    "both start at the same moment",
    "from the start",
    Promise(0, more="one runs, the other says so"),
)
def at_once(bench: Bench) -> Ended:
    bench.undisturbed()
    both = [bench.align(), bench.align(keep_plan=True)]
    ended = sorted((process.end() for process in both), key=lambda e: e.status)
    if ended[1].status == 0:  # the first was over when the second began: it is kept under a number
        return ended[1]
    assert ended[1].status == 2, ended[1].err
    return ended[0]


@case("two runs", "the first is killed, the lock is free", "after step 5", Promise(-9))
def lock(bench: Bench) -> Ended:
    running = held(bench)
    running.send(signal.SIGKILL)
    return running.end()


@case("two runs", "two runs make one new MLflow database", "from the start", Promise(
    0, more="each is in it once, whole"))  # fmt: skip
def one_database(bench: Bench) -> Ended:
    from .tracking import Store

    bench.undisturbed()
    store = Store(bench, made=False)
    other = bench.align("--out", str(bench.home / "other"))
    ended = bench.align(keep_plan=True).end()
    assert other.end().status == 0
    steps = [step for (step,) in store.ask("select step from metrics where key = 'loss'")]
    assert sorted(steps) == sorted([*range(1, 19)] * 2), steps
    return ended


# Ranks -----------------------------------------------------------------------------------------------


def ranks(running: Process) -> list[int]:
    """The processes of the run's second rank and on."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if int(fields[3]) == running.number and b"\0LOCAL_RANK=1" in environment:
            found.append(int(folder.name))
    return found


def two(bench: Bench, *more: str, at: dict | None = None) -> Process:
    return bench.align(*TWO, *more, cold=True, at=at)


def again(bench: Bench) -> None:
    bench.again = lambda: two(bench, "--resume").end(240)

    def equal() -> None:
        whole = bench.home / "whole"
        assert two(bench, "--out", str(whole)).end(240).status == 0
        assert_same(bench.run, whole)

    bench.equal = equal


@case("rank", "one of two ranks is killed", "after step 5", Promise(1, "--resume"))
def rank_killed(bench: Bench) -> Ended:
    again(bench)
    running = two(bench)
    running.until(lambda: bench.steps() >= 5, "step 5")
    (rank,) = ranks(running)
    os.kill(rank, signal.SIGKILL)
    return running.end()


@case("rank", "the first of two ranks is killed", "after step 5", Promise(-9, same=False))
def first_killed(bench: Bench) -> Ended:
    again(bench)
    running = two(bench)
    running.until(lambda: bench.steps() >= 5, "step 5")
    running.send(signal.SIGKILL)
    return running.end()


@case("rank", "Ctrl-C to both of two ranks", "after step 5", Promise(130, "interrupted", same=False))
def both_stopped(bench: Bench) -> Ended:
    again(bench)
    running = two(bench)
    running.until(lambda: bench.steps() >= 5, "step 5")
    running.send(signal.SIGINT, group=True)
    return running.end()


# Names and languages ---------------------------------------------------------------------------------

FOLDERS = {
    "the run folder's name has spaces, quotes and emoji": 'my "run" it\'s 🎈',
    "the run folder's name has a line break": "my\nrun",
    "the run folder's name looks like a pattern": "run-[*]?",
}
for name, folder in FOLDERS.items():

    @case("names", name, "from the start, killed after step 5", Promise(-9))
    def named(bench: Bench, folder: str = folder) -> Ended:
        bench.undisturbed()
        bench.run = bench.home / folder
        return bench.align(at=kill("step", count=5)).end()


@case("names", "the run folder's name is too long for the file system", "from the start", Promise(
    2, "File name too long", resumes=False, same=False, more="nothing was written"))  # fmt: skip
def too_long(bench: Bench) -> Ended:
    bench.run = bench.home / ("x" * 300)
    return bench.align().end()


@case("names", "a locale without UTF-8 (LC_ALL=C)", "from the start, a fresh interpreter", Promise())
def no_utf8(bench: Bench) -> Ended:
    bench.undisturbed()
    environment = {
        "LC_ALL": "C",
        "LANG": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    return bench.align(cold=True, environment=environment).end()


@case("environment", "there is no home folder", "from the start", Promise())
def no_home(bench: Bench) -> Ended:
    bench.undisturbed()
    return bench.align(environment={"HOME": "/nonexistent", "MODALIGN_CACHE": str(bench.home / "c")}).end()
