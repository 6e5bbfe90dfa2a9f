"""Makes the MLflow server agree with the run folder, whatever the server already has."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..metric_log import read_from
from .artifacts import artifacts, upload, upload_model
from .client import DeletedError, describe
from .names import mlflow_name, redact
from .points import Point
from .record import RunRecord, now
from .runs import ATTEMPTS, Runs
from .sender import GivenUpError, unreachable

if TYPE_CHECKING:
    from modalign.contracts import Run

log = logging.getLogger("modalign.tracking")

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
        self.run, self.record, self.heard = run, record, heard
        self.runs = Runs(uri, experiment, run.name, record, heard)
        self.ended: tuple[str, int] | None = None
        """How the run ended, in MLflow's word, and when; None while it goes on."""
        self.abandoned = False
        """Nobody waits for the rest any more."""
        self._samples: deque[Point] = deque()
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
                self.runs.start_over()
                self._offset, self._described = 0, False
                self._uploaded.clear()

    def system_metrics(self, step: int, at: int, readings: dict[str, float]) -> None:
        """Take a reading of the machine, from any thread, to be sent to the parent run."""
        self._samples.extend(Point(name, value, step, at) for name, value in readings.items())

    def _sync(self) -> bool:
        # What has ended is looked up before the metrics are read: they are then complete.
        ended = self.ended
        stages = dict(self.record.stages)
        over = [name for name, stage in stages.items() if stage.finished_at and not stage.closed]
        parent = self.runs.parent()
        if not self._described:
            self._try("parameters and tags", describe, self.runs.client, parent, self.run)
            self._described = True
        for name in stages:
            self._try(f"stage {name}", self.runs.child, name)
        self._metrics()
        for name in over:
            self._try(f"end of stage {name}", self._finish_stage, name, parent)
        self._try("system metrics", self._system, parent)
        if ended is None:
            return False
        for path in artifacts(self.run.folder):
            self._try(f"artifact {path}", self._artifact, parent, path)
        self._try("model", self._model, parent)
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
            self.runs.doubt()  # perhaps the run was deleted: look again
            self._refused[what] += 1
            if self._refused[what] < ATTEMPTS:
                raise
            log.warning("MLflow refuses the %s: %s", what, redact(str(error).split("\n")[0]))
        else:
            self._refused.pop(what, None)

    # Metrics.

    def _metrics(self) -> None:
        """Send ``metrics.jsonl`` from where we are to its end."""
        path = self.run.folder / "metrics.jsonl"
        if path.exists() and path.stat().st_size < self._offset:  # rewound under our eyes
            self.runs.points.start_over()
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
        self.runs.points.send(self.runs.child(name), points)

    def _finish_stage(self, name: str, parent: str) -> None:
        """The tasks' numbers in both runs, at the stage's last step; then the end of the child."""
        stage, child = self.record.stage(name), self.runs.child(name)
        step, at = self.runs.points.last_step(child), stage.finished_at or now()
        points = [Point(mlflow_name(metric), value, step, at) for metric, value in stage.metrics.items()]
        self.runs.points.send(child, points)
        self.runs.points.send(parent, [point for point in points if point.name != "seconds"])
        self._end(child, "FINISHED", at)
        stage.closed = True
        self.record.save()

    def _system(self, parent: str) -> None:
        samples = list(self._samples)
        self.runs.points.send(parent, samples)
        for _ in samples:
            self._samples.popleft()

    # The end.

    def _artifact(self, parent: str, path: str) -> None:
        if path not in self._uploaded:
            self.heard((self.run.folder / path).stat().st_size / 1e6)  # a megabyte a second is normal
            upload(self.runs.client, parent, self.run.folder, path)
            self._uploaded.add(path)
            self.heard(0)

    def _model(self, parent: str) -> None:
        if "MLmodel" not in self._uploaded:
            self.heard(10)  # MLflow's models are a large import
            upload_model(self.runs.client, parent, self.run.folder)
            self._uploaded.add("MLmodel")
            self.heard(0)

    def _end(self, run_id: str, status: str, at: int) -> None:
        self.runs.client.set_terminated(run_id, status, at)
        self.heard(0)
