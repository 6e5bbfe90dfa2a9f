"""One background thread that calls a function again and again until everything is sent."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .names import redact

log = logging.getLogger("modalign.tracking")

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds between attempts while the server is away; doubled from the one to the other."""

_REFUSED = frozenset(
    {
        *("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "NOT_IMPLEMENTED"),
        *("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"),
        *("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"),
        *("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"),
    }
)


class GivenUpError(Exception):
    """Trying again would not help: the server wants nothing of this run, or nobody waits any more."""


def unreachable(error: Exception) -> bool:
    """Whether the other side is away or overloaded, rather than refusing what was asked."""
    code = getattr(error, "error_code", None)  # MlflowException
    if isinstance(code, str):
        return code not in _REFUSED
    status = getattr(getattr(error, "response", None), "status_code", None)  # requests.HTTPError
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("sqlalchemy", "sqlite3")


class Sender:
    """The thread. It is a daemon: it never keeps the process alive, and nothing ever joins it.

    Inputs:
        sync: sends what is to be sent; True once there will be nothing more. It is called every
            ``poll`` seconds, and after an exception again, later and later.
        where: the other side's address, without credentials, for messages.
    """

    def __init__(self, sync: Callable[[], bool], where: str, poll: float) -> None:
        self._sync, self._where, self._poll = sync, where, poll
        self._closing, self._stop, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._warned = False
        self._heard, self._allowance = time.monotonic(), 0.0
        self.complete = False
        self.given_up = False
        self.reason = "no answer yet"
        """Why the last ``sync`` failed."""

    def start(self) -> None:
        threading.Thread(target=self._run, name="modalign-tracking", daemon=True).start()

    def heard(self, allowance: float = 0.0) -> None:
        """Tell that the other side has answered, and how many seconds the next answer may take."""
        self._heard, self._allowance = time.monotonic(), allowance

    def close(self, patience: float) -> bool:
        """Wait until everything is sent, but not ``patience`` seconds without an answer.

        Returns whether everything was sent. Afterwards the thread begins nothing new.
        """
        self._heard = time.monotonic()
        self._closing.set()
        try:
            while not self._ended.wait(0.05):
                if time.monotonic() - self._heard > patience + self._allowance:
                    break
        finally:
            self._stop.set()
        return self.complete

    def _run(self) -> None:
        wait = FIRST_WAIT / 2
        while not self._stop.is_set() and not self.complete:
            closing, heard = self._closing.is_set(), self._heard
            try:
                self.complete = self._sync()
                self.heard()
                pause, wait = self._poll, FIRST_WAIT / 2
            except GivenUpError as error:
                self.given_up = True
                if not self._stop.is_set():
                    log.warning("the run is not tracked in MLflow at %s: %s", self._where, redact(str(error)))
                break
            except Exception as error:
                self._failed(error)
                pause = wait = FIRST_WAIT if self._heard > heard else min(2 * wait, LONGEST_WAIT)
            if not closing and self._closing.wait(pause):
                wait = FIRST_WAIT / 2  # the run has ended: try at once
            elif closing and not self.complete:
                self._stop.wait(pause)
        self._ended.set()

    def _failed(self, error: Exception) -> None:
        self._allowance = 0.0
        self.reason = redact(f"{type(error).__name__}: {error}".split("\n")[0])[:300]
        if unreachable(error) and not self._warned:
            self._warned = True
            log.warning(
                "MLflow at %s cannot be reached (%s); the run goes on, what is missing is sent later",
                self._where,
                self.reason,
            )
