"""One change of the environment at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from modalign.errors import UserError

from .environment import state_folder


class Busy(UserError):
    """Somebody else is changing the environment."""


@contextmanager
def locked() -> Iterator[int]:
    """Holds the environment's lock; the system releases it, however the process ends.

    Yields the lock's file descriptor: a child that inherits it keeps the lock for as long as it runs.

    Raises:
        Busy: if another process holds it.
    """
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _lock(descriptor)
        except OSError:
            raise Busy(
                f"another `modalign plugins` command (process {_holder(descriptor)}) is changing this "
                "environment; wait until it is done"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield descriptor
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        return os.read(descriptor, 32).decode() or "unknown"
    except OSError:
        return "unknown"


def _lock(descriptor: int) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
