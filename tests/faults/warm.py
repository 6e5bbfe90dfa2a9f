"""A process that has imported everything and forks a child per command: imports are paid for once.

A child is a process like any other: its own session, signals, limits, exit status and end. Requests
and answers are JSON lines on stdin and stdout: a command in, its process id out; then, when it ends,
its status.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

from tests.faults.inside import arm


def become(request: dict[str, Any]) -> list[str]:
    """Turn a fresh fork into what a shell would have started; returns its arguments."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    for number, (name, flags) in enumerate(
        [
            (request["stdin"], os.O_RDONLY),
            (request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            (request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        ]
    ):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.closerange(3, 64)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for entry in reversed(request["environment"].get("PYTHONPATH", "").split(os.pathsep)):
        if entry and entry not in sys.path:
            sys.path.insert(0, entry)
    sys.argv = ["modalign", *request["arguments"]]
    arm(request["inside"])
    return request["arguments"]


def serve() -> list[str]:
    """Fork for every request; only in a child does it return, with the child's arguments."""
    answers, requests = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    waiting = b""
    os.write(answers, b'{"ready": true}\n')
    while True:
        ready, _, _ = select.select([awake, requests], [], [])
        if awake in ready:
            os.read(awake, 512)
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if process == 0:
                break
            ended = json.dumps({"process": process, "status": os.waitstatus_to_exitcode(status)})
            os.write(answers, ended.encode() + b"\n")
        if requests not in ready:
            continue
        data = os.read(requests, 1 << 16)
        if not data:
            os._exit(0)
        waiting += data
        while b"\n" in waiting:
            line, _, waiting = waiting.partition(b"\n")
            request = json.loads(line)
            process = os.fork()
            if process == 0:
                return become(request)
            os.write(answers, json.dumps({"started": process}).encode() + b"\n")


def imports() -> None:
    """What a run imports sooner or later."""
    import importlib

    for name in (
        "torch", "torch._dynamo", "lightning_fabric", "mlflow", "mlflow.tracking", "sklearn.datasets",
        "mlflow.store.tracking.sqlalchemy_store", "matplotlib", "pyarrow.parquet", "pyarrow.csv", "pyarrow.json",
        "safetensors.torch", "rich.progress", "faiss", "psutil", "PIL.Image", "soundfile",
        "modalign.training.run", "modalign.training.stage_run", "modalign.training.eval",
        "modalign.training.embed", "modalign.training.progress", "modalign.training.track.tracking",
        "modalign.training.compare", "modalign.training.sweep", "modalign.report", "modalign.search",
        "modalign.cli.main", "modalign.cli.align", "modalign.cli.eval", "modalign.cli.embed", "modalign.cli.search",
        "modalign_image.modality", "modalign_image.small_vit", "modalign_text.modality",
        "modalign_text.char_cnn", "modalign_audio.modality", "modalign_audio.logmel_cnn",
    ):  # fmt: skip
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not imported ahead: {error}", file=sys.stderr)


def end() -> NoReturn:
    """Run the command and end as an interpreter does, but for taking all of its objects apart.

    That alone would take three times as long as the run; cases in a fresh interpreter do it.
    """
    from modalign.cli.main import main

    status: object = 1
    try:
        status = main()
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def fewer_draws() -> None:
    """Confidence intervals, half of a tiny run's time, from 20 draws; no case looks at them."""
    from modalign.tasks.bootstrap import interval

    assert interval.__kwdefaults__ is not None
    interval.__kwdefaults__["draws"] = 20


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the test's terminal is for the tests
    imports()
    fewer_draws()
    gc.freeze()  # or every child's first collection would copy all of this process
    serve()
    end()
