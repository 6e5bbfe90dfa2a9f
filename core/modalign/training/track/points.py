"""Sends metric points so that no (run, name, step) is ever stored twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

MAX_POINTS = 1000
"""MLflow's limit on the metrics of one request."""


class Point(NamedTuple):
    """One value of one metric; ``time`` in unix milliseconds, ``name`` as MLflow accepts it."""

    name: str
    value: float
    step: int
    time: int


class Points:
    """The sender of points: asks the server what it has whenever that is not certain.

    Certain are only runs that this object saw created and whose requests all came back. For any
    other run (resumed, or after a request without an answer) the steps that the server already
    has are fetched before the first point of a metric is sent.

    Inputs:
        client: an ``mlflow.MlflowClient``.
        heard: to be called at every answer, with 0.
    """

    def __init__(self, client: Any, heard: Callable[[float], None]) -> None:
        self._client, self._heard = client, heard
        self._certain: set[str] = set()
        self._stored: dict[tuple[str, str], set[int]] = {}
        self._last: dict[tuple[str, str], int] = {}

    def created(self, run_id: str) -> None:
        """Tell that the run was made just now and holds nothing."""
        self._certain.add(run_id)

    def start_over(self) -> None:
        """Expect every point again, from the first one; those on the server stay skipped."""
        self._certain.clear()
        self._stored.clear()
        self._last.clear()

    def last_step(self, run_id: str) -> int:
        """The highest step sent or seen for that run; 0 if none."""
        return max((step for (run, _), step in self._last.items() if run == run_id), default=0)

    def send(self, run_id: str, points: Iterable[Point]) -> None:
        """Store the points that the server lacks.

        Inputs:
            points: steps ascend within one metric, over all calls too: an older step is skipped.

        Raises:
            MlflowException: if a request failed; the same call can then be repeated.
        """
        points = list(points)
        for start in range(0, len(points), MAX_POINTS):
            newer = [p for p in points[start : start + MAX_POINTS] if p.step > self._seen(run_id, p.name)]
            lacking = {(p.name, p.step): p for p in newer if not self._on_server(run_id, p)}
            if lacking:
                self._store(run_id, list(lacking.values()))
            for point in newer:
                self._last[run_id, point.name] = max(point.step, self._seen(run_id, point.name))

    def _seen(self, run_id: str, name: str) -> int:
        return self._last.get((run_id, name), -1)

    def _on_server(self, run_id: str, point: Point) -> bool:
        if run_id in self._certain:
            return False
        key = (run_id, point.name)
        if key not in self._stored:
            self._stored[key] = {stored.step for stored in self._client.get_metric_history(*key)}
            self._heard(0)
        return point.step in self._stored[key]

    def _store(self, run_id: str, points: list[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(p.name, p.value, p.time, p.step) for p in points]
        try:
            self._client.log_batch(run_id, metrics=metrics, synchronous=True)
        except BaseException:
            # The server may have stored them all the same.
            self._certain.discard(run_id)
            for point in points:
                self._stored.pop((run_id, point.name), None)
            raise
        self._heard(0)
