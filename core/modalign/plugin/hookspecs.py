"""What a plugin may say: the whole surface on one screen.

A plugin implements any subset, each function marked ``@hookimpl``, and may leave out arguments it
does not need. ``register_*`` hooks return lists of ``Component`` and take no arguments; events
return nothing, and one that raises is reported once and never stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

from .component import Component

if TYPE_CHECKING:
    from modalign.contracts import Run, Stage

hookspec = pluggy.HookspecMarker("modalign")


@hookspec
def register_modalities() -> list[Component]:  # type: ignore[empty-body]
    """Kinds of data this plugin can read."""


@hookspec
def register_encoders() -> list[Component]:  # type: ignore[empty-body]
    """Networks that turn one modality's batch into features."""


@hookspec
def register_projections() -> list[Component]:  # type: ignore[empty-body]
    """Shared modules that turn aligned features into embeddings."""


@hookspec
def register_losses() -> list[Component]:  # type: ignore[empty-body]
    """Objectives over a batch of embeddings."""


@hookspec
def register_tasks() -> list[Component]:  # type: ignore[empty-body]
    """Measurements of a space."""


@hookspec
def run_started(run: Run) -> None:
    """A run began, or went on after ``--resume``."""


@hookspec
def stage_started(run: Run, stage: Stage) -> None:
    """A stage began, or went on after ``--resume``."""


@hookspec
def step_finished(run: Run, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
    """An optimiser step ended. ``metrics``: loss, its parts, lr, scale, grad_norm, samples_per_second."""


@hookspec
def stage_finished(run: Run, stage: Stage, metrics: Mapping[str, float]) -> None:
    """A stage ended. ``metrics``: the tasks' numbers, ``"retrieval:audio->image/R@1"``, and seconds."""


@hookspec
def run_finished(run: Run, status: str) -> None:
    """The run ended: ``"ok"``, ``"failed"`` or ``"interrupted"``."""
