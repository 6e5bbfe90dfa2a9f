"""Loads the next batches in a thread while the current one is trained on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
PATIENCE = 1.0
"""Seconds that an interrupted reader waits for its source."""


class Prefetcher(Generic[T]):
    """An iterator that runs ahead of its reader by ``depth`` items; use it in a ``with`` block.

    An exception of the source is raised where its item would have come.
    """

    def __init__(self, source: Iterator[T], depth: int = 2) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._waited = 0.0

    def __enter__(self) -> Prefetcher[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        # Whoever presses Ctrl-C while the source hangs does not want to wait for it.
        until = time.monotonic() + (PATIENCE if kind is KeyboardInterrupt else float("inf"))
        while self._thread.is_alive() and time.monotonic() < until:
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def __iter__(self) -> Iterator[T]:
        while True:
            started = time.perf_counter()
            more, item = self._queue.get()
            self._waited += time.perf_counter() - started
            if isinstance(item, BaseException):
                raise item
            if not more:
                return
            yield item  # type: ignore[misc]

    def waited(self) -> float:
        """Seconds the reader has waited for data since the last call."""
        seconds, self._waited = self._waited, 0.0
        return seconds

    def _fill(self) -> None:
        try:
            for item in self._source:
                if self._stop.is_set():
                    return
                self._queue.put((True, item))
        except BaseException as error:
            self._queue.put((False, error))
        else:
            self._queue.put((False, None))
        finally:
            close = getattr(self._source, "close", None)  # a generator may hold processes
            if close is not None:
                close()
