"""One stage ready to train, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.contracts import Loss
from modalign.plugin import loader
from modalign.space import Space

from .data import Dataset
from .plan import Plan, StagePlan
from .reader import Reader
from .sampler import Epochs
from .stage import Trained

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from .anchors import Anchor

Metrics = dict[str, float]


class RunFailed(Exception):
    """The run cannot go on; the message says why and what to do."""


@dataclass
class Position:
    """Where a stage is: everything that changes while it trains, beside tensors and generators."""

    epoch: int = 0
    batch: int = 0
    """The next batch of the epoch."""
    step: int = 0
    """Optimiser steps of the whole run so far."""
    stage_step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    best: float | None = None
    waited: int = 0
    """Measurements since the best one."""
    nonfinite: int = 0
    done: bool = False


@dataclass
class StageJob:
    """One stage ready to train.

    Inputs:
        readers: by aligned modality.
        on_step: told every optimiser step's metrics.
        on_checkpoint: given the stage's state, to be written.
        measure: runs the task of ``select`` and returns its primary metric and direction.
        stopping: whether the user asked to stop.
    """

    fabric: Fabric
    plan: Plan
    stage: StagePlan
    space: Space
    trained: Trained
    dataset: Dataset
    epochs: Epochs
    readers: Mapping[str, Reader | Anchor]
    losses: dict[str, tuple[float, Loss]]
    folder: Path
    on_step: Callable[[int, Metrics], None]
    on_checkpoint: Callable[[dict[str, Any]], None]
    measure: Callable[[], tuple[float, bool]] | None
    stopping: Callable[[], bool]
    position: Position = field(default_factory=Position)


def steps_per_epoch(stage: StagePlan, epochs: Epochs) -> int:
    """Optimiser steps in one epoch; the last may have fewer batches to accumulate."""
    return -(-epochs.batches // stage.accumulate)


def build_losses(stage: StagePlan) -> dict[str, tuple[float, Loss]]:
    """``{name: (weight, loss)}`` of a stage."""
    built = {}
    for name, (weight, spec) in stage.weights().items():
        built[name.replace(":", "/")] = (weight, loader.load("losses", name)(**spec.keywords()))
    return built
