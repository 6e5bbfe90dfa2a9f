"""Ends a process of a run when another of its processes has died, for which it would wait.

Processes that Fabric or torchrun started have the starter as their parent. The first process knows its
children; a child sees that its parent is gone. SLURM ends the tasks of a job by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from .fabric import started_by
from .job import RunFailed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVERY = 0.3
"""Seconds between looks."""
GRACE = 10.0
"""Seconds for a process to see by itself that another is gone, before it is ended."""
CHILDREN: list[subprocess.Popen[bytes]] = []
"""That this process has started, for all its runs: Fabric starts them once, and a sweep goes on with them."""
RESUME = "the run can go on from its last checkpoint with --resume"


class Watch(threading.Thread):
    """Looks after the other processes, until it is told that this one is leaving."""

    def __init__(self, fabric: Fabric, world: int) -> None:
        super().__init__(daemon=True)
        self.world = world
        self.started: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
        self.children = CHILDREN
        starter, _ = started_by()
        child = not starter and os.environ.get("LOCAL_RANK", "0") != "0"
        self.parent = os.getppid() if starter == "torchrun" or child else None
        self._left = threading.Event()

    def run(self) -> None:
        while not self._left.wait(EVERY):
            lost = self._look()
            if lost and not self._left.wait(GRACE):
                self._end(lost)

    def leave(self) -> None:
        """This process is ending in its own way."""
        self._left.set()

    def reason(self, seconds: float) -> str:
        """Which process was lost, as soon as that shows; "" if it does not."""
        until = time.monotonic() + seconds
        while not (lost := self._look()) and time.monotonic() < until:
            time.sleep(0.05)
        return lost

    def end_children(self) -> None:
        """Wait a little for the children to end by themselves; then end them, stopped ones, too."""
        until = time.monotonic() + GRACE / 2
        for child in self.children:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _look(self) -> str:
        # Not left to Fabric, which would kill this process, too, without a word, even while it writes its
        # last files: it looks after those in its list.
        while self.started:
            self.children.append(self.started.pop(0))
        for child in self.children:
            code = child.poll()
            if code:
                rank = self.children.index(child) + 1
                how = (
                    f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                )
                return f"process {rank} of {self.world} {how}"
        if self.parent is not None and os.getppid() != self.parent:
            return "the process that started this one has ended"
        return ""

    def _end(self, lost: str) -> None:
        for child in self.children:
            child.kill()
        print(f"modalign: the run failed: {lost}; {RESUME}", file=sys.stderr, flush=True)
        os._exit(1)


@contextmanager
def watched(fabric: Fabric) -> Iterator[Watch | None]:
    """Watches the other processes inside, where they are started; what their loss makes fail says so.

    Raises:
        RunFailed: in place of an error of communication.
    """
    world = getattr(fabric.strategy, "num_processes", 1) * getattr(fabric.strategy, "num_nodes", 1)
    if world == 1:
        yield None
        return
    watch = Watch(fabric, world)
    watch.start()
    try:
        yield watch
    except Exception as error:
        watch.leave()
        lost = is_lost(error)
        told = watch.reason(GRACE / 5) if lost else ""
        watch.end_children()
        if not lost:
            raise
        told = told or f"process {fabric.global_rank} lost the others ({str(error).splitlines()[0][:200]})"
        raise RunFailed(f"{told}; {RESUME}") from error
    finally:
        watch.leave()


def is_lost(error: Exception) -> bool:
    """Whether an error is one of communication between processes."""
    words = ("gloo", "NCCL", "Timed out")
    return isinstance(error, RuntimeError) and (
        isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)
    )
