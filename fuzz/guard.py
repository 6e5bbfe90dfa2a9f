"""Notices what no reader may do: write elsewhere, start processes, use the network, run code of its input."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

NEVER = (
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system", "os.exec", "os.fork",
    "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn", "pickle.find_class", "ctypes.dlopen", "urllib.Request", "os.kill", "os.putenv",
    "os.chmod", "os.chown", "os.setxattr", "webbrowser.open", "ftplib.connect", "smtplib.connect",
)  # fmt: skip
WRITES = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree",
    "shutil.move", "shutil.copyfile", "os.utime",
)  # fmt: skip
MAKERS = ("dataclasses.py", "__init__.py", "_make.py")
"""Of classes (dataclasses, named tuples, attrs), for modules that are imported late."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """An audit hook of the interpreter; what happens while ``watching`` and must not is kept.

    Inputs:
        scratch: the only folder that may be written to.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = str(scratch.resolve())
        self.watching = False
        self._seen: list[str] = []
        sys.addaudithook(self._hook)

    def taken(self) -> list[str]:
        """What was seen since the last call."""
        seen, self._seen = self._seen, []
        return seen

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and not self._inside(path):
                self._refuse(f"writes {path}")
        elif event in WRITES:
            if not self._inside(args[0]):
                self._refuse(f"{event} {args[0]}")
        elif event in NEVER:
            self._refuse(event)
        elif event == "exec":
            code = args[0]
            asks = os.path.basename(sys._getframe(1).f_code.co_filename)
            made = asks in MAKERS or "frozen" in code.co_filename or os.path.exists(code.co_filename)
            if not made:
                self._refuse(f"runs code of {code.co_filename} for {asks}")

    def _refuse(self, what: str) -> None:
        self._seen.append(what)
        raise PermissionError(f"a reader must not do this: {what}")

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        whole = os.path.realpath(os.fsdecode(path))
        return whole == "/dev/null" or whole.startswith(self.scratch + os.sep) or whole == self.scratch
