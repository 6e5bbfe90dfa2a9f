"""Runs a plan's tasks on a finished space."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space
from modalign.space_files import load

from .build import versions
from .checks import prepare_tasks
from .data import Dataset
from .evaluate import run_tasks, task_splits
from .plan import Plan
from .plan_file import read_plan
from .quarantine import Quarantine
from .reader import Reader
from .report_files import write_reports
from .run_folder import MARK
from .track.names import redacted


def evaluate(
    space: Space | str | os.PathLike[str],
    plan: str | os.PathLike[str] | dict[str, Any] | Plan,
    overrides: Iterable[str] = (),
    out: Path | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of a plan's tasks on a space, by task id.

    Inputs:
        out: a folder for ``report.json``, ``report.html`` and ``quarantine.csv``.

    Raises:
        UserError: if plan and space do not fit, or no task can be measured.
    """
    if not isinstance(space, Space):
        space = load(space)
    prepared = prepare_tasks(read_plan(plan, overrides), space)
    if out is not None and (out / MARK).exists():
        raise UserError(f"{out} is a run's folder: choose another with --out")
    quarantine = Quarantine()
    readers: dict[tuple[int, str], Reader] = {}

    def reader(dataset: Dataset, name: str) -> Reader:
        key = (id(dataset), name)
        if key not in readers:
            readers[key] = Reader(
                space, name, dataset, quarantine, seed=prepared.plan.seed, cached=prepared.plan.cache
            )
        return readers[key]

    found = run_tasks(space, prepared.plan.tasks, task_splits(prepared.task_dataset, reader))
    if not found:
        raise UserError(
            "none of the plan's tasks could be measured on this space; the warnings above say why"
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        quarantine.save(out / "quarantine.csv")
        used = {p.distribution: p.version for p in loader.plugins() if p.problem is None}
        write_reports(
            out,
            space,
            found,
            prepared.task_dataset(),
            plan=redacted(prepared.plan.model_dump(mode="json")),
            versions=versions(used),
            quarantined=len(quarantine.rows),
        )
    return {name: measured.report.metrics for name, measured in found.items()}
