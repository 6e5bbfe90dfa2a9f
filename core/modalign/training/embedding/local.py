"""Embeds parts in processes of this machine; one that is killed is replaced and its part done again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from modalign.errors import UserError

from ..job import RunFailed
from .embedder import Embedder
from .job import EmbedJob

ATTEMPTS = 3
"""Workers that one part may cost before the run ends."""
DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass
class Worker:
    """A process, what it is working on, and its place among devices."""

    process: BaseProcess
    part: int
    place: int


def embed_parts(job: EmbedJob, parts: Iterable[int], workers: int, devices: Sequence[str]) -> Iterator[int]:
    """Embed parts with so many processes; yields each part when it is on disk.

    Raises:
        UserError: if a worker finds that the input is wrong.
        RunFailed: if a part fails, or ends its worker three times.
    """
    waiting, killed = deque(parts), Counter[int]()
    team: dict[Connection, Worker] = {}
    free = list(range(workers))
    idle: list[tuple[Connection, Worker]] = []
    threads = max(1, cores() // workers)
    try:
        while waiting or team:
            while waiting and (idle or free):
                part = waiting.popleft()
                if idle:
                    pipe, worker = idle.pop()
                    worker.part = part
                else:
                    place = free.pop(0)
                    own = replace(job, device=devices[place % len(devices)])
                    pipe, process = _start(own, threads)
                    worker = Worker(process, part, place)
                team[pipe] = worker
                _send(pipe, part)
            for ready in wait(list(team)):
                assert isinstance(ready, Connection)
                pipe, worker = ready, team.pop(ready)
                try:
                    outcome, text = pipe.recv()
                except (EOFError, OSError):
                    pipe.close()
                    free.append(worker.place)
                    killed[worker.part] += 1
                    _again(job, worker, killed[worker.part])
                    waiting.appendleft(worker.part)
                    continue
                if outcome != DONE:
                    team[pipe] = worker  # to be ended with the others
                    raise (UserError if outcome == REFUSED else RunFailed)(text)
                idle.append((pipe, worker))
                yield worker.part
    finally:
        for pipe, worker in [*team.items(), *idle]:
            worker.process.kill()
            pipe.close()
        for worker in [*team.values(), *(worker for _, worker in idle)]:
            worker.process.join()


def cores() -> int:
    """Cores this process may use: as many threads as torch would start."""
    return torch.get_num_threads()


def _again(job: EmbedJob, worker: Worker, times: int) -> None:
    """Whether a part whose worker has ended may be tried once more."""
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    if times == ATTEMPTS:
        raise RunFailed(
            f"{job.named(worker.part)}: three workers in turn were {how}. The system sends SIGKILL when "
            "memory runs out: lower --workers or --batch-size, or mend those rows. What is done is kept: go "
            "on with --resume"
        )
    logging.getLogger("modalign").warning(
        "%s: its worker was %s; another one does them again", job.named(worker.part), how
    )


def _start(job: EmbedJob, threads: int) -> tuple[Connection, BaseProcess]:
    """A process of its own, never a fork: torch's threads do not survive one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, job, threads), daemon=True)
    resource_tracker.ensure_running()  # the first start would, and unblock what is blocked here
    # A terminal's Ctrl-C goes to every process, and this one alone decides. A child inherits the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return ours, process


def _send(pipe: Connection, part: int) -> None:
    with suppress(OSError):  # it has ended: reading from it says so
        pipe.send(part)


def _serve(pipe: Connection, job: EmbedJob, threads: int) -> None:
    """What a worker does: parts, as they come, until nobody sends any."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    logging.getLogger("modalign").setLevel(logging.ERROR)  # the first process has said it
    torch.set_num_threads(threads)
    embedder: Embedder | None = None
    while True:
        try:
            part = pipe.recv()
        except (EOFError, OSError):  # the first process has closed it: it is ending
            return
        try:
            embedder = embedder or Embedder(job)
            embedder.embed(part)
            answer = (DONE, "")
        except UserError as error:
            answer = (REFUSED, str(error))
        except Exception as error:
            answer = (FAILED, explained(job, part, error))
        with suppress(OSError):  # likewise
            pipe.send(answer)


def explained(job: EmbedJob, part: int, error: BaseException) -> str:
    """An error in a part as the message that ends the run."""
    text = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
    return f"{job.named(part)}: {' '.join(text.split())}"


def _follow_parent() -> None:
    """Ends this process with the one that started it, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
