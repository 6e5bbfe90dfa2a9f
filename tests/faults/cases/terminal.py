"""Whoever reads what a run says goes away, or never was there."""

from __future__ import annotations

import os
import pty
import signal
import termios

from ..bench import Bench
from ..case import Promise, case
from ..inside import moment
from ..process import Ended


def pipe(bench: Bench, name: str) -> tuple[str, int]:
    """A pipe, and its reader."""
    path = bench.home / name
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return str(path), reader


@case("broken pipe", "stdout's reader has gone (`| head`)", "before the results are printed", Promise())
def stdout_closed(bench: Bench) -> Ended:
    path, reader = pipe(bench, "out.fifo")
    running = bench.align(stdout=path, at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    os.close(reader)
    bench.go_on()
    return running.end()


@case("broken pipe", "stderr's reader has gone", "after step 5", Promise())
def stderr_closed(bench: Bench) -> Ended:
    path, reader = pipe(bench, "err.fifo")
    running = bench.align(stderr=path, at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    os.close(reader)
    bench.go_on()
    return running.end()


@case("broken pipe", "stdout is a full disk (/dev/full)", "when the results are printed", Promise(
    1, "No space left", more="space and report are whole"))  # fmt: skip
def stdout_full(bench: Bench) -> Ended:
    return bench.align(stdout="/dev/full").end()


@case("terminal", "a progress bar on a terminal that is closed", "after step 5", Promise())
def terminal_closed(bench: Bench) -> Ended:
    mine, theirs = pty.openpty()
    name = os.ttyname(theirs)
    running = bench.align(stderr=name, at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    os.close(theirs)
    os.close(mine)
    bench.go_on()
    return running.end()


@case("terminal", "a terminal without capabilities, one column wide", "from the start", Promise())
def dumb_terminal(bench: Bench) -> Ended:
    mine, theirs = pty.openpty()
    termios.tcsetwinsize(mine, (1, 1)) if hasattr(termios, "tcsetwinsize") else None
    running = bench.align(stderr=os.ttyname(theirs), environment={"TERM": "dumb", "COLUMNS": "1"})
    os.set_blocking(mine, False)
    while running.status() is None:
        try:
            os.read(mine, 1 << 16)
        except (BlockingIOError, OSError):
            os.sched_yield()
    os.close(mine)
    os.close(theirs)
    return running.end()


@case("terminal", "Ctrl-C typed at a terminal with a progress bar", "after step 5", Promise(130))
def typed(bench: Bench) -> Ended:
    mine, theirs = pty.openpty()
    running = bench.align(
        stderr=os.ttyname(theirs), at=moment("step", count=5, do="wait", flag=str(bench.flag))
    )
    bench.paused(running)
    running.send(signal.SIGINT, group=True)
    bench.go_on()
    ended = running.end()
    said = os.read(mine, 1 << 16).decode()
    ended.err = said.replace("\r", "")
    os.close(mine)
    os.close(theirs)
    return ended
