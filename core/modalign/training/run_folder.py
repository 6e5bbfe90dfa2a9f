"""The run folder: claimed by one process at a time, never overwritten."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any

import yaml

from modalign.errors import UserError

from .build import differences

log = logging.getLogger("modalign")

RESUMABLE = ("track", "checkpoint", "fabric", "max_nonfinite")
"""What a resumed run's plan may change."""


class RunFolder:
    """``runs/<plan name>``: made on ``claim``, with the lock held until ``release``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def space(self) -> Path:
        return self.path / "space"

    def check(self, plan: dict[str, Any], resume: bool) -> None:
        """See whether this run may use the folder; writes nothing.

        Raises:
            UserError: if another process runs there, it holds something else, or the plan to resume differs.
        """
        saved = self.path / "plan.yaml"
        if self._busy():
            raise UserError(
                f"another run is writing {self.path}; wait for it, or choose another folder with --out"
            )
        if not resume:
            if self.path.exists() and (
                not self.path.is_dir() or (any(self.path.iterdir()) and not saved.is_file())
            ):
                raise UserError(f"{self.path} exists and is no run folder; choose another with --out")
            return
        if not saved.is_file():
            raise UserError(
                f"there is no run to resume in {self.path}; leave out --resume, or name its folder with --out"
            )
        old = yaml.safe_load(saved.read_text(encoding="utf-8"))
        changed = [d for d in differences(old, plan) if d.split(".")[0] not in RESUMABLE]
        if changed:
            raise UserError(
                f"the plan differs from the one that {self.path} was started with, in {', '.join(changed)}; "
                "undo that, or start anew without --resume"
            )

    def claim(self, plan: dict[str, Any], resume: bool) -> None:
        """Make the folder. What an earlier run left is kept beside it, under a number."""
        if not resume and self.path.is_dir() and any(self.path.iterdir()):
            number = 1
            while (kept := self.path.with_name(f"{self.path.name}.{number}")).exists():
                number += 1
            os.replace(self.path, kept)
            log.info("the earlier run is kept as %s", kept)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        write_text(self.path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _busy(self) -> bool:
        try:
            with (self.path / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
