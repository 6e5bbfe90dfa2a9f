"""Makes the MLflow server agree with the run folder, whatever the server already has."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import mlflow_runs
from .metric_log import read_from
from .mlflow_artifacts import artifacts, upload
from .mlflow_names import mlflow_name, redact
from .mlflow_points import Point, Points
from .mlflow_record import RunRecord, StageRecord, now
from .mlflow_runs import DeletedError
from .mlflow_sender import GivenUpError, unreachable

if TYPE_CHECKING:
    from modalign.contracts import Run

log = logging.getLogger("modalign.tracking")

ATTEMPTS = 3
"""How often something that the server refuses is asked for before it is left out."""
CHUNK = 100_000
"""Bytes of ``metrics.jsonl`` sent at a time."""


class Mirror:
    """All that talks to MLflow, used by the sender's thread alone.

    ``sync`` compares what should be there (the run record, ``metrics.jsonl``, the end of the run)
    with what it has sent, and sends the rest in order. Every part can be repeated safely, so that
    the next ``sync`` mends a failure anywhere.

    Inputs:
        record: the run's ``mlflow.json``.
        heard: to be called at every answer, with the seconds that the next one may take.
    """

    def __init__(
        self, uri: str, experiment: str, run: Run, record: RunRecord, heard: Callable[[float], None]
    ) -> None:
        self.uri, self.experiment, self.run, self.record, self.heard = uri, experiment, run, record, heard
        self.ended: tuple[str, int] | None = None
        """How the run ended, in MLflow's word, and when; None while it goes on."""
        self.abandoned = False
        """Nobody waits for the rest any more."""
        self.samples: deque[Point] = deque(maxlen=100_000)
        self._client: Any = None
        self._points: Any = None
        self._experiment = ""
        self._open: set[str] = set()
        self._offset = 0
        self._described = False
        self._refused: Counter[str] = Counter()
        self._uploaded: set[str] = set()

    def sync(self) -> bool:
        """Send what is missing; True when the run has ended and everything is there."""
        while True:
            try:
                return self._sync()
            except DeletedError:
                self._points.start_over()
                self._offset, self._described = 0, False
                self._open.clear()
                self._uploaded.clear()

    def reopen(self, stage: StageRecord) -> None:
        """Tell that a stage which was over goes on."""
        self._open.discard(stage.run_id or "")

    def _sync(self) -> bool:
        # What has ended is looked up before the metrics are read: they are then complete.
        ended = self.ended
        stages = dict(self.record.stages)
        over = [name for name, stage in stages.items() if stage.finished_at and not stage.closed]
        parent = self._parent()
        if not self._described:
            self._try("parameters and tags", mlflow_runs.describe, self._client, parent, self.run)
            self._described = True
        for name in stages:
            self._try(f"stage {name}", self._child, name)
        self._metrics()
        for name in over:
            self._try(f"end of stage {name}", self._finish_stage, name, parent)
        self._try("system metrics", self._system, parent)
        if ended is None:
            return False
        for path in artifacts(self.run.folder):
            self._try(f"artifact {path}", self._artifact, parent, path)
        for name, stage in stages.items():
            if not stage.closed and stage.run_id:
                self._try(f"end of stage {name}", self._end, stage.run_id, *ended)
        self._try("end of the run", self._end, parent, *ended)
        return True

    def _try(self, what: str, action: Callable[..., Any], *arguments: Any) -> None:
        """Do it, unless it has been refused too often: one bad part must not keep back the rest."""
        if self.abandoned:
            raise GivenUpError("the run has ended")
        if self._refused[what] >= ATTEMPTS:
            return
        try:
            action(*arguments)
        except (DeletedError, GivenUpError):
            raise
        except Exception as error:
            if unreachable(error):
                raise
            self._open.clear()  # perhaps the run was deleted: look again
            self._refused[what] += 1
            if self._refused[what] < ATTEMPTS:
                raise
            log.warning("MLflow refuses the %s: %s", what, redact(str(error).split("\n")[0]))
        else:
            self._refused.pop(what, None)

    # Runs.

    def _parent(self) -> str:
        try:
            if self._client is None:
                self._client = mlflow_runs.connect(self.uri)
                self._points = Points(self._client)
            self._experiment = self._experiment or mlflow_runs.experiment_id(self._client, self.experiment)
            return self._run(self.record, self.run.name, {})
        except DeletedError:
            log.warning("run %s was deleted in MLflow: a new one is made", self.record.run_id)
            self.record.renew()
            raise
        except Exception as error:
            self._refused["run"] += not unreachable(error)
            if self._refused["run"] >= ATTEMPTS:
                raise GivenUpError(str(error)) from error
            raise

    def _child(self, name: str) -> str:
        stage, parent = self.record.stage(name), self._parent()
        try:
            return self._run(stage, name, {"mlflow.parentRunId": parent}, running=not stage.closed)
        except DeletedError:
            log.warning("run %s (%s) was deleted in MLflow: a new one is made", stage.run_id, name)
            self.record.renew(name)
            raise

    def _run(
        self, record: RunRecord | StageRecord, name: str, tags: dict[str, str], running: bool = True
    ) -> str:
        """The id of the run a record stands for: known, looked up, or made."""
        if record.run_id in self._open:
            return str(record.run_id)
        if record.run_id:
            found = mlflow_runs.find(self._client, record.run_id)
        else:
            found, made = mlflow_runs.find_or_make(
                self._client, self._experiment, record.key, name, record.started_at, tags
            )
            if made:
                self._points.created(found.info.run_id)
        run_id: str = found.info.run_id
        if running and found.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        record.run_id = run_id
        self.record.save()
        self._open.add(run_id)
        self.heard(0)
        return run_id

    # Metrics.

    def _metrics(self) -> None:
        """Send ``metrics.jsonl`` from where we are to its end."""
        path = self.run.folder / "metrics.jsonl"
        if path.exists() and path.stat().st_size < self._offset:  # rewound under our eyes
            self._points.start_over()
            self._offset = 0
        while True:
            records, end = read_from(path, self._offset, CHUNK)
            if not records:
                return
            for name in dict.fromkeys(record["stage"] for record in records):
                points = [
                    Point(mlflow_name(metric), value, record["step"], record["time"])
                    for record in records
                    if record["stage"] == name
                    for metric, value in record["metrics"].items()
                ]
                if self._refused[f"stage {name}"] < ATTEMPTS:
                    what = f"metrics of stage {name} at byte {self._offset}"
                    self._try(what, self._send_stage, name, points)
            self._offset = end

    def _send_stage(self, name: str, points: list[Point]) -> None:
        self._send(self._child(name), points)

    def _send(self, run_id: str, points: list[Point]) -> None:
        self._points.send(run_id, points)
        self.heard(0)

    def _finish_stage(self, name: str, parent: str) -> None:
        """The tasks' numbers in both runs, at the stage's last step; then the end of the child."""
        stage, child = self.record.stage(name), self._child(name)
        step, at = self._points.last_step(child), stage.finished_at or now()
        points = [Point(mlflow_name(metric), value, step, at) for metric, value in stage.metrics.items()]
        self._send(child, points)
        self._send(parent, [point for point in points if point.name != "seconds"])
        self._end(child, "FINISHED", at)
        stage.closed = True
        self.record.save()

    def _system(self, parent: str) -> None:
        samples = list(self.samples)
        self._send(parent, samples)
        for _ in samples:
            self.samples.popleft()

    # The end.

    def _artifact(self, parent: str, path: str) -> None:
        if path not in self._uploaded:
            self.heard((self.run.folder / path).stat().st_size / 1e6)  # a megabyte a second is normal
            upload(self._client, parent, self.run.folder, path)
            self._uploaded.add(path)
            self.heard(0)

    def _end(self, run_id: str, status: str, at: int) -> None:
        self._client.set_terminated(run_id, status, at)
        self.heard(0)
