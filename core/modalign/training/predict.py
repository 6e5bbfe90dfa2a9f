"""Predicts what every stage of a plan needs: memory, disk and time, from a short probe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch

from modalign.errors import UserError
from modalign.space import Space
from modalign.space_files import load

from .build import build_encoders, build_space, enter_stage
from .checks import Prepared, check_widths, prepare
from .context import Context
from .fabric import build_fabric
from .job import RunFailed
from .plan import FabricPlan, Plan
from .plan_file import read_plan
from .prediction import StagePrediction
from .quarantine import Quarantine, TooManyBad
from .run_folder import RunFolder
from .shards.tar_index import nothing_kept
from .speed import matrix_products
from .stage import trained_parts
from .stage_probe import StageProbe


def predict(
    plan: str | os.PathLike[str] | dict[str, Any] | Plan,
    overrides: Iterable[str] = (),
    start: str | None = None,
) -> list[StagePrediction]:
    """Memory and time of each stage of a checked plan; nothing is written.

    A few rows of the real data are read, encoded and trained on.

    Raises:
        UserError: if anything is wrong with it.
    """
    return predict_stages(checked(plan, overrides, start))[0]


def checked(
    plan: str | os.PathLike[str] | dict[str, Any] | Plan,
    overrides: Iterable[str] = (),
    start: str | None = None,
) -> Prepared:
    """A plan that nothing speaks against, and its tables, of which nothing is kept on disk.

    Raises:
        UserError: if anything is wrong with it.
    """
    with nothing_kept():
        return prepare(read_plan(plan, overrides), load(start) if start else None)


def predict_stages(prepared: Prepared) -> tuple[list[StagePrediction], Space]:
    """The same of a plan that is checked already, and the space it would train, as it begins."""
    build_fabric(prepared.plan.fabric)  # what the run would refuse; nothing is started
    with matrix_products(prepared.plan):
        return _predicted(prepared)


def _predicted(prepared: Prepared) -> tuple[list[StagePrediction], Space]:
    fabric = _one_device(prepared.plan.fabric)
    free = _free(fabric.device)
    encoders = build_encoders(prepared.plan)
    space = prepared.start or build_space(prepared.plan)
    check_widths(prepared.plan, encoders, space)
    with tempfile.TemporaryDirectory() as scratch:
        run = Context(
            prepared=prepared,
            folder=RunFolder(Path(scratch)),
            fabric=fabric,
            space=space,
            quarantine=Quarantine(),
            metrics=None,
            about=None,  # type: ignore[arg-type]
        )
        found: list[StagePrediction] = []
        encoded: set[int] = set()
        for i, stage in enumerate(prepared.plan.stages):
            new = enter_stage(
                prepared.plan, space, stage, encoders, founders=prepared.start is None and i == 0
            )
            first = prepared.start is None and i == prepared.plan.first_trained
            trained = trained_parts(prepared.plan, stage, new, first=first)
            try:
                found.append(StageProbe(run, stage, trained, free, Path(scratch), encoded).predict())
            except (TooManyBad, RunFailed) as error:
                raise UserError(f"stages.{stage.name}: {error}") from None
    return found, space


def _one_device(plan: FabricPlan) -> Any:
    from lightning_fabric import Fabric

    try:
        return Fabric(accelerator=plan.accelerator, devices=1, precision=plan.precision)
    except Exception as error:
        raise UserError(f"fabric: {error}") from error


def _free(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
