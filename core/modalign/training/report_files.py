"""``report.json`` and ``report.html`` of a run, or of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalign import report as reports
from modalign.space import Space

from .data import Dataset
from .evaluate import Measured
from .gallery import make_gallery
from .health import health
from .run_folder import write_json


def write_reports(
    folder: Path,
    space: Space,
    measured: Mapping[str, Measured],
    dataset: Dataset | None,
    *,
    whole: bool = True,
    stages: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> None:
    """Write both files.

    Inputs:
        measured: every task, by id.
        dataset: what they were measured on.
        whole: with examples, map and the data's health, which take a moment.
        stages: of this run; none for an evaluation.
        more: what else ``report.json`` says: ``plan``, ``versions``, ``quarantined``.
    """
    found = {name: m.report for name, m in measured.items()}
    needed = {name: m.task.modalities for name, m in measured.items()}
    content = {
        **more,
        "stages": list(stages),
        "tasks": {name: report.metrics for name, report in found.items()},
        "intervals": {name: report.intervals for name, report in found.items() if report.intervals},
        "chance": {name: report.chance for name, report in found.items() if report.chance},
        "primary": {name: m.task.primary for name, m in measured.items()},
        "never_paired": reports.never_paired(space.stages, needed),
    }
    if whole and dataset is not None:
        there = [m for m in space.modalities if any(m in table.columns for table in dataset.tables)]
        content["health"] = health(dataset, there)
    write_json(folder / "report.json", content)
    reports.write(folder, content, found, make_gallery(space, measured) if whole else None)
