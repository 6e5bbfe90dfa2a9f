"""What goes wrong inside of a process, and when: armed before its command runs."""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import functools
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE_EVENTS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.link": 1, "shutil.rmtree": 0}
"""Python's audit events that faults may wait for, and which argument is the path."""


def arm(spec: dict[str, Any]) -> None:
    """Prepare this process for its faults.

    Inputs:
        spec: ``limits`` ``{"RLIMIT_NOFILE": 20}``; ``room``: bytes of address space beyond what is
            used now; ``plain``: whether file permissions are to
            hold for root too; ``moments``: as ``moment`` makes them.
    """
    for name, value in spec.get("limits", {}).items():
        limit(name, value, "")
    if "room" in spec:
        limit_memory(spec["room"], "")
    if spec.get("plain"):
        give_up_privileges()
    if "PATIENCE" in os.environ:  # a minute for MLflow's last answer is long for a test
        from modalign.training.track.tracking import Tracking

        defaults = Tracking.__init__.__kwdefaults__
        assert defaults is not None
        defaults["patience"] = float(os.environ["PATIENCE"])
    files = []
    for each in spec.get("moments", ()):
        act = functools.partial(ACTIONS[each["do"]], **each["with"])
        if each["event"] == "step":
            _wrap("modalign.training.metric_log:MetricLog.append", each, act, lambda a: "lr" in a[3])
        elif each["event"] == "call":
            _wrap(each["path"], each, act, lambda a: True)
        else:
            files.append((each, act, [0]))
    if files:
        sys.addaudithook(lambda event, args: _audit(files, event, args))


def give_up_privileges() -> None:
    """Root minus the capabilities that let it read and write whatever it wants to."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3; this process
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if libc.capget(head, data) == 0:
        for i in range(3):
            data[i] &= ~0b1111  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        if libc.capset(head, data) != 0:
            raise OSError(ctypes.get_errno(), "capset")


def _audit(files: list[tuple[dict[str, Any], Callable[..., None], list[int]]], event: str, args: Any) -> None:
    if event not in FILE_EVENTS:
        return
    path = args[FILE_EVENTS[event]]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    name = os.fsdecode(path)
    for moment, act, seen in files:
        if event != moment["event"] or not fnmatch.fnmatch(name, moment["path"]):
            continue
        if event == "open" and moment["writing"] != bool(args[2] & (os.O_WRONLY | os.O_RDWR)):
            continue
        seen[0] += 1
        if seen[0] == moment["count"] or (moment["always"] and seen[0] > moment["count"]):
            act(path=name)


def _wrap(
    target: str, moment: dict[str, Any], act: Callable[..., None], counts: Callable[[Any], bool]
) -> None:
    """Act before (for a step: after) the n-th call of a function named ``module:attribute``."""
    module, _, names = target.partition(":")
    *owners, name = names.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    honest, seen = getattr(owner, name), 0

    @functools.wraps(honest)
    def watched(*args: Any, **keywords: Any) -> Any:
        nonlocal seen
        hit = counts(args)
        seen += hit
        due = hit and (seen == moment["count"] or (moment["always"] and seen > moment["count"]))
        if due and moment["event"] == "call":
            act(path=target)
        result = honest(*args, **keywords)
        if due and moment["event"] == "step":
            act(path=target)
        return result

    setattr(owner, name, watched)


# What can happen at a moment ---------------------------------------------------------------------


def send(number: int, path: str, times: int = 1) -> None:
    """A signal, to this very process."""
    for _ in range(times):
        os.kill(os.getpid(), number)
        time.sleep(0.02)  # Python runs a signal's handler between two of its own instructions
    if number == signal.SIGSTOP:
        time.sleep(0.01)


def fail(number: int, path: str) -> None:
    """The system refuses the operation."""
    raise OSError(number, os.strerror(number), path)


def raise_error(name: str, text: str, path: str) -> None:
    raise {"RuntimeError": RuntimeError, "MemoryError": MemoryError, "SystemExit": SystemExit}[name](text)


def wait(flag: str, path: str) -> None:
    """Say that the moment has come by making ``flag``, and go on once somebody has removed it."""
    descriptor = os.open(flag, os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
    while os.path.exists(flag):
        time.sleep(0.005)


def shift_clock(seconds: float, path: str) -> None:
    """The wall clock jumps; the monotonic one goes on."""
    honest, honest_ns = time.time, time.time_ns
    time.time = lambda: honest() + seconds
    time.time_ns = lambda: honest_ns() + int(seconds * 1e9)


def limit(name: str, value: int, path: str) -> None:
    """A limit of the system's, lowered."""
    resource.setrlimit(getattr(resource, name), (value, resource.getrlimit(getattr(resource, name))[1]))


def limit_memory(room: int, path: str) -> None:
    """No more address space than so many bytes beyond what is used now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit("RLIMIT_AS", pages * os.sysconf("SC_PAGE_SIZE") + room, path)


def leave(status: int, path: str) -> None:
    """The process ends on the spot, as a library may end it."""
    os._exit(status)


ACTIONS: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (send, fail, raise_error, wait, shift_clock, limit, limit_memory, leave)
}


def moment(
    event: str,
    path: str = "*",
    count: int = 1,
    *,
    do: str,
    always: bool = False,
    writing: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """A fault and when it happens, as plain values.

    Inputs:
        event: ``step`` (after the n-th optimiser step is in ``metrics.jsonl``), ``call`` (before the
            n-th call of the function that ``path`` names), or one of ``FILE_EVENTS`` on files that
            the pattern ``path`` matches, before the operation is done.
        count: ``n``, from 1.
        always: at every later one too.
        writing: of ``open`` only: for writing or for reading.
        do: one of ``ACTIONS``; ``more`` are its arguments.
    """
    return {
        "event": event, "path": path, "count": count, "do": do, "always": always, "writing": writing, "with": more,
    }  # fmt: skip


def kill(
    event: str, path: str = "*", count: int = 1, number: int = signal.SIGKILL, **more: Any
) -> dict[str, Any]:
    return moment(event, path, count, do="send", number=int(number), **more)


def refuse(
    event: str, path: str = "*", count: int = 1, number: int = errno.ENOSPC, **more: Any
) -> dict[str, Any]:
    return moment(event, path, count, do="fail", number=number, **more)
