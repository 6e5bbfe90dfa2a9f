"""The run folder: claimed by one process at a time, never overwritten."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import yaml

from modalign.errors import UserError

from .build import differences
from .job import RunFailed

log = logging.getLogger("modalign")

RESUMABLE = ("track", "checkpoint", "fabric", "max_nonfinite", "data.max_bad", "workers")
"""What a resumed run's plan may change."""
MARK = ".run"
"""The file that makes a folder a run's: digests of what the run was started with."""


class RunFolder:
    """``runs/<plan name>``: made on ``claim``, with a lock beside it held until ``release``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: Any = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def space(self) -> Path:
        return self.path / "space"

    def check(self, plan: dict[str, Any], inputs: dict[str, str], resume: bool) -> None:
        """See whether this run may use the folder; writes nothing.

        Inputs:
            inputs: digests of the data and the space it starts from, by name.

        Raises:
            UserError: if it holds something else, or the plan or inputs to resume with differ.
        """
        mark = self.path / MARK
        try:
            there = self.path.exists()
        except OSError as error:  # such as a name too long
            raise UserError(f"no run folder can be {self.path}: {error.strerror}") from None
        if not resume:
            if there and not (self.path.is_dir() and (mark.is_file() or self._empty())):
                raise UserError(f"{self.path} exists and is no run folder; choose another with --out")
            return
        if not (mark.is_file() and (self.path / "plan.yaml").is_file()):
            raise UserError(
                f"there is no run to resume in {self.path}; leave out --resume, or name its folder with --out"
            )
        try:
            old = yaml.safe_load((self.path / "plan.yaml").read_text(encoding="utf-8"))
            before = json.loads(mark.read_text(encoding="utf-8"))
            if not (isinstance(old, dict) and isinstance(before, dict)):
                raise ValueError("not what a run wrote")
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(
                f"the run in {self.path} is damaged ({' '.join(str(error).split())}); "
                "start anew without --resume"
            ) from None
        changed = [d for d in differences(old, plan) if not d.startswith(RESUMABLE)]
        changed += [name for name, digest in inputs.items() if before.get(name) != digest]
        if changed:
            raise UserError(
                f"the run in {self.path} was started with something else: {', '.join(changed)}; "
                "undo that, or start anew without --resume"
            )

    def claim(self, plan: dict[str, Any], inputs: dict[str, str], resume: bool) -> None:
        """Make the folder. What an earlier run left is kept beside it, under a number.

        Raises:
            UserError: if another process runs there, or the folder cannot be written.
        """
        try:
            self._claim(plan, inputs, resume)
        except OSError as error:
            self.release()
            raise UserError(
                f"cannot write the run folder {self.path}: {error.strerror or error}; "
                "choose another with --out"
            ) from None

    def _claim(self, plan: dict[str, Any], inputs: dict[str, str], resume: bool) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UserError(
                f"another run is writing {self.path}; wait for it, or choose another folder with --out"
            ) from None
        self._lock = lock
        if not resume and self.path.is_dir() and any(self.path.iterdir()):
            number = 1
            while (kept := self.path.with_name(f"{self.path.name}.{number}")).exists():
                number += 1
            os.replace(self.path, kept)
            log.info("the earlier run is kept as %s", kept)
        self.path.mkdir(exist_ok=True)
        write_json(self.path / MARK, inputs)  # first: a process killed right after leaves a run's folder
        write_text(self.path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))

    def check_there(self) -> None:
        """See whether the folder is still where it was made, before more is written to it.

        Raises:
            RunFailed: if it is not.
        """
        if not (self.path / MARK).is_file():
            raise RunFailed(
                f"the run folder {self.path} is gone: deleted, moved, or its disk is. Put it back"
            )

    def _empty(self) -> bool:
        """Whether there is nothing but what a process killed on its first write left."""
        return all(path.name == f".{MARK}.part" for path in self.path.iterdir())

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Plain values as JSON; what is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False, default=str) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
