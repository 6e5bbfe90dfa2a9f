"""What the event hooks are told about a run and its stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One run of a plan."""

    name: str
    folder: Path
    plan: dict[str, Any]
    """The resolved plan: every default written out."""
    versions: dict[str, str]
    """modalign, torch and every plugin used, by distribution."""
    data_digest: str
    git_commit: str | None
    resumed: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    index: int
    epochs: int
    steps: int
    """Optimiser steps the stage takes if nothing stops it early."""
    batch_size: int
    first_step: int
    """The run's step count when the stage began; steps count from 1 over the whole run."""
    config: dict[str, Any] = field(default_factory=dict)
