"""MLflow tracking as a plugin of the events; it never slows or stops the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from modalign.plugin.component import hookimpl

from .mirror import Mirror
from .names import redact
from .record import RunRecord, now
from .sender import Sender, log
from .system_metrics import SystemMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modalign.contracts import Run, Stage

STATUS = {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a blind repetition could store something twice
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for data
}
_DEFAULTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class Tracking:
    """Mirrors one run in MLflow: a parent run for the plan, a child run for each stage.

    Metrics come from the run folder's ``metrics.jsonl``; ``mlflow.json`` remembers the runs. One
    background thread does all the talking, so that a slow or absent server costs the run nothing;
    what it missed is sent when it is back, at the end, or by ``--resume``, each step exactly once.

    Inputs:
        uri: any MLflow tracking URI. Credentials in it are shown nowhere.
        experiment: the experiment's name; by default the run's.
        patience: seconds to wait at the run's end for a server that does not answer.
        poll: seconds between looks at ``metrics.jsonl``.
        system_interval: seconds between two readings of CPU, memory and GPU.
    """

    def __init__(
        self,
        uri: str = "sqlite:///mlflow.db",
        experiment: str | None = None,
        *,
        patience: float = 60.0,
        poll: float = 1.0,
        system_interval: float = 10.0,
    ) -> None:
        self.uri, self.experiment = uri, experiment
        self.patience, self.poll, self.system_interval = patience, poll, system_interval
        self._mirror: Mirror | None = None

    @hookimpl
    def run_started(self, run: Run) -> None:
        path = run.folder / "mlflow.json"
        record = (RunRecord.load(path) if run.resumed else None) or RunRecord(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        record.save()  # before the server is asked: a run made by a process that dies is found again
        self._record = record
        mirror = Mirror(self.uri, self.experiment or run.name, run, record, lambda s: self._sender.heard(s))
        self._mirror = mirror
        self._sender = Sender(mirror.sync, redact(self.uri), self.poll)
        self._system = SystemMetrics(record.started_at, self.system_interval, mirror.system_metrics)
        self._environment = ExitStack()
        self._environment.enter_context(_environment())
        self._sender.start()
        self._system.start()

    @hookimpl
    def stage_started(self, run: Run, stage: Stage) -> None:
        if self._mirror is None:
            return
        with self._record.lock:
            child = self._record.stage(stage.name)
            if child.finished_at is not None:  # it ended, but the process died before it could say so
                child.finished_at, child.closed = None, False
                self._mirror.runs.reopen(child)
            self._record.save()

    @hookimpl
    def stage_finished(self, run: Run, stage: Stage, metrics: Mapping[str, float]) -> None:
        if self._mirror is None:
            return
        with self._record.lock:
            child = self._record.stage(stage.name)
            child.metrics = {name: float(value) for name, value in metrics.items()}
            child.finished_at = now()
            self._record.save()

    @hookimpl
    def run_finished(self, run: Run, status: str) -> None:
        if self._mirror is None:
            return
        mirror, self._mirror = self._mirror, None
        self._system.stop()
        mirror.ended = STATUS[status], now()
        try:
            if not self._sender.close(self.patience) and not self._sender.given_up:
                log.warning(
                    "MLflow at %s did not get everything (%s); `modalign align PLAN --resume` sends the rest",
                    redact(self.uri),
                    self._sender.reason,
                )
        finally:
            mirror.abandoned = True
            self._environment.close()


@contextmanager
def _environment() -> Iterator[None]:
    """MLflow's client reads its settings from the environment: ours hold while a run does."""
    before = {name: os.environ.get(name) for name in (*_SETTINGS, *_DEFAULTS)}
    os.environ.update(_SETTINGS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new database is no news to the user
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # nor a traceback: we say why
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
