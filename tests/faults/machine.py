"""What the machine lets the suite do: file systems of its own."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path


def mount(what: str, where: Path, *options: str) -> bool:
    """Whether it worked."""
    done = subprocess.run(["mount", *options, what, str(where)], capture_output=True)
    return done.returncode == 0


def unmount(where: Path) -> None:
    """At once, whoever uses it."""
    subprocess.run(["umount", "-l", str(where)], capture_output=True)


@functools.lru_cache
def lacks(need: str | None) -> str:
    """Why a case's need cannot be met here; empty if it can."""
    if need == "mount":
        with tempfile.TemporaryDirectory() as folder:
            if os.getuid() != 0 or not mount("tmpfs", Path(folder), "-t", "tmpfs", "-o", "size=1m"):
                return "mounting a file system needs root"
            unmount(Path(folder))
    return ""
