"""``mlflow.json``: which MLflow runs mirror this run folder, so that a resumed run finds them."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path


def new_key() -> str:
    """A value for the tag ``modalign.run_key``, by which a run is found again on the server."""
    return uuid.uuid4().hex


def now() -> int:
    """Unix time in milliseconds, as MLflow counts it."""
    return time.time_ns() // 1_000_000


@dataclass
class StageRecord:
    """One stage's child run.

    Inputs:
        key: written to disk before the server is asked for a run, and tagged on that run.
        run_id: None until the server has answered.
        finished_at: when the stage ended, in unix milliseconds; None while it goes on.
        metrics: what ``stage_finished`` told, for the parent run.
        closed: the server knows that the stage ended.
    """

    key: str = field(default_factory=new_key)
    run_id: str | None = None
    started_at: int = field(default_factory=now)
    finished_at: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    closed: bool = False


@dataclass
class RunRecord:
    """One run's parent run and its stages; the training thread and the sender both write it.

    Inputs:
        path: the file, replaced as a whole by ``save``.
    """

    path: Path
    key: str = field(default_factory=new_key)
    run_id: str | None = None
    started_at: int = field(default_factory=now)
    stages: dict[str, StageRecord] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> RunRecord | None:
        """What an earlier process wrote, or None if there is nothing readable."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            stages = {name: StageRecord(**stage) for name, stage in told.pop("stages").items()}
            return cls(path, stages=stages, **told)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def save(self) -> None:
        """Replace the file in one move: a reader sees the old one or the new one."""
        with self.lock:
            told = {"key": self.key, "run_id": self.run_id, "started_at": self.started_at}
            stages = {name: asdict(stage) for name, stage in self.stages.items()}
            draft = self.path.with_suffix(".json.tmp")
            draft.write_text(json.dumps({**told, "stages": stages}, indent=1), encoding="utf-8")
            os.replace(draft, self.path)

    def stage(self, name: str) -> StageRecord:
        """The stage of that name, made if new."""
        with self.lock:
            if name not in self.stages:
                self.stages[name] = StageRecord()
                self.save()
            return self.stages[name]

    def renew(self, stage: str | None = None) -> None:
        """Forget the run of one stage, or of everything, because it was deleted on the server."""
        with self.lock:
            if stage is None:
                self.key, self.run_id = new_key(), None
            for name, record in self.stages.items():
                if stage in (None, name):
                    record.key, record.run_id, record.closed = new_key(), None, False
            self.save()
