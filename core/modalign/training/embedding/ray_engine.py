"""Embeds parts as tasks of a Ray cluster, which does the part of a lost worker or node again."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalign.errors import UserError

from ..job import RunFailed
from .embedder import Embedder
from .job import EmbedJob
from .local import ATTEMPTS, explained
from .parts import part_path

AHEAD = 2
"""Tasks per core that wait at the cluster."""

_held: Embedder | None = None


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected: to the cluster at ``address``, that of ``RAY_ADDRESS``, or one on this machine.

    Raises:
        UserError: if Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UserError('--engine ray needs Ray: pip install "modalign[ray]"') from None
    ours = not ray.is_initialized()
    if ours:
        try:
            _answers(address or os.environ.get("RAY_ADDRESS"))
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"no Ray cluster at {address or 'RAY_ADDRESS'}: {reason}") from None
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _answers(address: str | None) -> None:
    """Ray itself tries for minutes to reach a cluster that is not there.

    Raises:
        OSError: if nothing listens at ``host:port``.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def devices(ray: Any, name: str) -> list[str]:
    """What a task computes on: "auto" is a GPU of its own where the cluster has any."""
    if name == "auto":
        return ["cuda" if ray.cluster_resources().get("GPU") else "cpu"]
    return [name]


def embed_parts(ray: Any, job: EmbedJob, parts: Iterable[int], workers: int | None) -> Iterator[int]:
    """Embed parts on the cluster; yields each part when it is on disk.

    Inputs:
        workers: parts embedded at the same time; None: as many as the cluster has room for.

    Raises:
        UserError: if a worker finds that the input is wrong.
        RunFailed: if a part fails, or ends its worker three times.
    """
    gpu = job.device.startswith("cuda")
    kind = "GPU" if gpu else "CPU"
    task = ray.remote(
        num_cpus=1,
        num_gpus=int(gpu),
        max_retries=ATTEMPTS - 1,
        retry_exceptions=False,
        scheduling_strategy="SPREAD",
    )(embed_part)
    waiting = deque(parts)
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            room = workers or AHEAD * max(1, int(ray.cluster_resources().get(kind, 1)))
            while waiting and len(running) < room:
                part = waiting.popleft()
                running[task.remote(job, part)] = part
            for reference in ray.wait(list(running))[0]:
                part = running.pop(reference)
                node = _outcome(ray, job, part, reference)
                if not part_path(Path(job.parts), part).is_file():
                    raise UserError(
                        f"{node} has embedded {job.named(part)}, but {job.parts} here does not show it: "
                        "--out must lie in a folder that every node sees under the same name"
                    )
                yield part
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _outcome(ray: Any, job: EmbedJob, part: int, reference: Any) -> str:
    try:
        node: str = ray.get(reference)
        return node
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise RunFailed(explained(job, part, cause)) from None
    except ray.exceptions.RayError as error:
        raise RunFailed(
            f"{job.named(part)}: three workers in turn were lost ({str(error).splitlines()[0]}). What is "
            "done is kept: go on with --resume"
        ) from None


def embed_part(job: EmbedJob, part: int) -> str:
    """What a worker does; it keeps the space for its next part. Returns its host."""
    global _held
    if _held is None or _held.job != job:
        _held = Embedder(job)
    _held.embed(part)
    return socket.gethostname()
