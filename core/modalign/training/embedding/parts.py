"""The folder of finished parts, from which an interrupted run goes on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modalign.errors import UserError

from ..run_folder import write_json
from .cost import PartCost

MANIFEST, LOCK, SPACE = "manifest.json", "lock", "space"
NOTE = b"modalign.part"
"""The key of a part's own metadata: its cost and what could not be read."""
FREE = ("batch_size", "made_from")
"""What of the manifest a resumed run may change: digests tell tables and spaces apart, not paths."""

Bad = list[tuple[str, int, str]]


def part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:06d}.parquet"


def write_part(path: Path, table: pa.Table, cost: PartCost, bad: Bad) -> None:
    """One part, on disk whole or not at all; two workers may write the same one."""
    note = json.dumps({"cost": cost.as_dict(), "bad": bad})
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with new.open("wb") as file:
        pq.write_table(table.replace_schema_metadata({NOTE: note}), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def read_note(path: Path) -> tuple[pa.Schema, PartCost, Bad]:
    """A part's columns, its cost, and table, row and reason of what could not be read.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        schema = pq.read_schema(path)
        note = json.loads(schema.metadata[NOTE])
        return schema.remove_metadata(), PartCost(**note["cost"]), note["bad"]
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


class PartsFolder:
    """``<out>.parts``: the manifest, the finished parts, a lock held while somebody writes there."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f"{out.name}.parts")
        self._lock: Any = None

    def earlier(self, resume: bool) -> dict[str, Any] | None:
        """The manifest of the run to go on with; None to begin.

        Raises:
            UserError: if an unfinished run is there and nobody said to go on with it.
        """
        if not self.path.exists():
            return None
        if not (self.path / MANIFEST).is_file():
            raise UserError(f"{self.path} exists and holds no unfinished run; choose another --out")
        if not resume:
            done = len(list(self.path.glob("part-*.parquet")))
            raise UserError(
                f"{self.path} holds an unfinished run with {done} finished parts: go on with --resume, "
                f"or begin anew after: rm -r {self.path}"
            )
        manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        return manifest

    def claim(self, manifest: dict[str, Any], earlier: dict[str, Any] | None) -> None:
        """Make the folder, or take over the one of an interrupted run.

        Raises:
            UserError: if that run was another, or somebody still writes there.
        """
        changed = [
            name if name in ("space", "table") else f"{name} ({earlier.get(name)}, now {value})"
            for name, value in manifest.items()
            if earlier is not None and name not in FREE and earlier.get(name) != value
        ]
        if changed:
            raise UserError(
                f"the run in {self.path} was started with something else: {', '.join(changed)}; undo that, "
                f"or begin anew after: rm -r {self.path}"
            )
        if earlier is None:  # whoever is killed here leaves a folder that nobody takes for a run
            new = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
            new.mkdir(parents=True)
            write_json(new / MANIFEST, manifest)
            try:
                os.replace(new, self.path)
            except OSError:  # another run has begun since this one looked
                shutil.rmtree(new)
                raise self._taken() from None
        lock = (self.path / LOCK).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise self._taken() from None
        self._lock = lock
        write_json(self.path / MANIFEST, manifest)
        for left in self.path.glob(".part-*"):
            left.unlink()

    def _taken(self) -> UserError:
        return UserError(f"another process is writing {self.path}; wait for it, or choose another --out")

    def done(self, parts: range) -> set[int]:
        """Which parts are finished; damaged ones are not."""
        finished = set()
        for part in parts:
            path = part_path(self.path, part)
            if path.is_file():
                try:
                    read_note(path)
                except ValueError:
                    continue
                finished.add(part)
        return finished

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
