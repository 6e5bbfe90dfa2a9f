"""The parent run and its child runs: known, looked up, or made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from .client import DeletedError, connect, experiment_id, find, find_or_make
from .points import Points
from .record import RunRecord, StageRecord
from .sender import GivenUpError, unreachable

log = logging.getLogger("modalign.tracking")

ATTEMPTS = 3
"""How often something that the server refuses is asked for before it is left out."""


class Runs:
    """Ids of runs that are certainly there; every id asked for may cost a few requests once.

    Inputs:
        record: the run's ``mlflow.json``, kept up to date.
        heard: to be called at every answer.

    Raises:
        DeletedError: when a run was deleted on the server. The record then asks for a new one, and
            whatever it held must be sent again.
    """

    def __init__(
        self, uri: str, experiment: str, name: str, record: RunRecord, heard: Callable[[float], None]
    ) -> None:
        self.client: Any = None
        self.points: Points = Points(None, heard)
        self._uri, self._experiment, self._name = uri, experiment, name
        self._record, self._heard = record, heard
        self._experiment_id = ""
        self._open: set[str] = set()
        self._refusals = 0

    def parent(self) -> str:
        """The plan's run.

        Raises:
            GivenUpError: if the server refuses to have it.
        """
        try:
            if self.client is None:
                self.client = connect(self._uri)
                self.points = Points(self.client, self._heard)
            self._experiment_id = self._experiment_id or experiment_id(self.client, self._experiment)
            return self._id(self._record, self._name, {})
        except DeletedError:
            log.warning("run %s was deleted in MLflow: a new one is made", self._record.run_id)
            self._record.renew()
            raise
        except Exception as error:
            self._refusals += not unreachable(error)
            if self._refusals >= ATTEMPTS:
                raise GivenUpError(str(error)) from error
            raise

    def child(self, stage: str) -> str:
        """A stage's run, below the parent."""
        record, parent = self._record.stage(stage), self.parent()
        try:
            return self._id(record, stage, {"mlflow.parentRunId": parent}, running=not record.closed)
        except DeletedError:
            log.warning("run %s (%s) was deleted in MLflow: a new one is made", record.run_id, stage)
            self._record.renew(stage)
            raise

    def reopen(self, stage: StageRecord) -> None:
        """Set a stage that was over to running again, when next it is asked for."""
        self._open.discard(stage.run_id or "")

    def doubt(self) -> None:
        """Look every run up again when next it is asked for."""
        self._open.clear()

    def start_over(self) -> None:
        """Expect every point to be sent again."""
        self.doubt()
        self.points.start_over()

    def _id(
        self,
        record: RunRecord | StageRecord,
        name: str,
        tags: Mapping[str, str],
        running: bool = True,
    ) -> str:
        if record.run_id in self._open:
            return str(record.run_id)
        if record.run_id:
            found = find(self.client, record.run_id)
        else:
            found, made = find_or_make(
                self.client, self._experiment_id, record.key, name, record.started_at, tags
            )
            if made:
                self.points.created(found.info.run_id)
        run_id: str = found.info.run_id
        if running and found.info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        record.run_id = run_id
        self._record.save()
        self._open.add(run_id)
        self._refusals = 0
        self._heard(0)
        return run_id
