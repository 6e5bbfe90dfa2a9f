"""Runs side by side: what their plans differ in, what they reach, what they cost."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from modalign.errors import UserError
from modalign.report.page import frame, table
from modalign.report.svg import intervals_chart

from .track.names import flatten

ALSO = ("class_R@1",)
"""Shown beside each task's primary metric."""


class _Stage(BaseModel):
    seconds: float
    encode_seconds: float = 0.0
    trained_parameters: int
    trained_encoder_parameters: int = 0


class _Report(BaseModel):
    """What of a ``report.json`` is compared."""

    plan: dict[str, Any]
    stages: list[_Stage]
    tasks: dict[str, dict[str, float | None]]
    primary: dict[str, str] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}


@dataclass(frozen=True)
class Compared:
    """One run: its name, and what its ``report.json`` holds."""

    name: str
    report: Mapping[str, Any]

    def seconds(self) -> float:
        return sum(s["seconds"] + s.get("encode_seconds", 0.0) for s in self.report["stages"])

    def trained(self) -> int:
        return sum(s["trained_parameters"] + s["trained_encoder_parameters"] for s in self.report["stages"])


def read_run(source: str, uri: str | None = None) -> list[Compared]:
    """A run folder; or an MLflow run's id; or ``experiment:NAME``, all its finished plans' runs.

    Inputs:
        uri: MLflow's tracking URI.

    Raises:
        UserError: if it is none of these.
    """
    file = Path(source) / "report.json" if Path(source).is_dir() else Path(source)
    if file.is_file():
        return [Compared(file.absolute().parent.name, _report(file, source))]
    if os.sep in source or source.startswith("."):
        raise UserError(f"{source} is no run folder: it has no report.json")
    return _from_mlflow(source, uri or "sqlite:///mlflow.db")


def _report(file: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        compared = _Report.model_validate(content)
        return {**content, **compared.model_dump()}
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{source}: report.json cannot be read: {place}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: report.json cannot be read: {error}") from None


def _from_mlflow(source: str, uri: str) -> list[Compared]:
    import tempfile

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///").split("?")[0]).is_file():
        raise UserError(
            f"there is no run folder {source}, and no MLflow database at {uri} (--uri names another)"
        )
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    prefix, _, name = source.partition(":")
    try:
        if prefix == "experiment" and name:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                known = ", ".join(e.name for e in client.search_experiments()) or "none"
                raise UserError(f"MLflow has no experiment {name!r} (it has: {known})")
            every = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
            runs = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
        else:
            runs = [client.get_run(source)]
    except MlflowException as error:
        raise UserError(f"there is no run folder and no MLflow run {source!r}: {error.message}") from None
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            if any(file.path == "report.json" for file in client.list_artifacts(run.info.run_id)):
                path = client.download_artifacts(run.info.run_id, "report.json", folder)
                found.append(Compared(run.info.run_name or run.info.run_id, _report(Path(path), source)))
    if not found:
        raise UserError(f"{source}: MLflow holds no report.json of it; did the run finish?")
    return found


def differing(runs: Sequence[Compared]) -> dict[str, list[str]]:
    """By key of the plan, the value of each run, where not all are equal."""
    flat = [dict(flatten(run.report["plan"])) for run in runs]
    keys = list(dict.fromkeys(key for plan in flat for key in plan))
    found = {key: [plan.get(key, "") for plan in flat] for key in keys if key != "name"}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def metrics(runs: Sequence[Compared], chosen: Iterable[str] = ()) -> list[tuple[str, str]]:
    """``(task, metric)`` to be shown: those chosen, else each task's primary one and ``ALSO``.

    Raises:
        UserError: if no run has a chosen metric.
    """
    chosen = list(chosen)
    found: dict[tuple[str, str], None] = {}
    known: dict[str, None] = {}
    for run in runs:
        for task, values in run.report["tasks"].items():
            primary = run.report.get("primary", {}).get(task, next(iter(values), ""))
            for metric in values:
                known[metric] = None
                if metric in chosen if chosen else metric in (primary, *ALSO):
                    found[task, metric] = None
    missing = [metric for metric in chosen if metric not in known]
    if missing:
        raise UserError(f"no run has the metric {missing[0]!r} (they have: {', '.join(known)})")
    return list(found)


def rows(runs: Sequence[Compared], chosen: Iterable[str] = ()) -> list[list[str]]:
    """A row per run below a head: differences, metrics with intervals, seconds, parameters."""
    different, shown = differing(runs), metrics(runs, chosen)
    head = ["run", *different, *(f"{task} {metric}" for task, metric in shown), "seconds", "trained"]
    body = []
    for i, run in enumerate(runs):
        cells = [values[i] for values in different.values()]
        for task, metric in shown:
            value = run.report["tasks"].get(task, {}).get(metric)
            low, high = run.report.get("intervals", {}).get(task, {}).get(metric, (None, None))
            text = "" if value is None else f"{value:.3f}"
            cells.append(text if low is None else f"{text} ({low:.3f} to {high:.3f})")
        body.append([run.name, *cells, f"{run.seconds():.1f}", f"{run.trained():,}"])
    return [head, *body]


def as_json(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """Everything that is compared, as plain values."""
    different = differing(runs)
    return [
        {
            "run": run.name,
            "differences": {key: values[i] for key, values in different.items()},
            "tasks": run.report["tasks"],
            "intervals": run.report.get("intervals", {}),
            "seconds": run.seconds(),
            "trained_parameters": run.trained(),
        }
        for i, run in enumerate(runs)
    ]


def page(runs: Sequence[Compared], chosen: Iterable[str] = ()) -> str:
    """The table and a chart of every metric, as one page that needs no network."""
    chosen = list(chosen)
    charts = []
    for task, metric in metrics(runs, chosen):
        points = []
        for run in runs:
            value = run.report["tasks"].get(task, {}).get(metric)
            if value is not None:
                low, high = run.report.get("intervals", {}).get(task, {}).get(metric, (value, value))
                points.append((run.name, value, low, high))
        charts.append(f"<h2>{html.escape(f'{task} {metric}')}</h2>{intervals_chart(points, metric)}")
    return frame(f"{len(runs)} runs", table(rows(runs, chosen)) + "".join(charts))
