"""The progress bar as a plugin of the events, on stderr."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from modalign.plugin.component import hookimpl

if TYPE_CHECKING:
    from modalign.contracts import Run, Stage


class Progress:
    """Shows each stage as a bar with loss, speed and time left, then as one line of results.

    Where stderr is not a terminal there is no bar, only the line.

    Inputs:
        quiet: show nothing at all.
        file: where to write; stderr by default.
    """

    def __init__(self, quiet: bool = False, file: TextIO | None = None) -> None:
        self._quiet, self._file = quiet, file
        self._bar: Any = None
        self._task: Any = None
        self._loss = math.nan

    @hookimpl
    def stage_started(self, run: Run, stage: Stage) -> None:
        self._stop()
        self._loss = math.nan
        file = self._file or sys.stderr
        if self._quiet or not file.isatty():
            return
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[numbers]}"),
            progress.TimeRemainingColumn(compact=True),
            console=Console(file=file),
            transient=True,
        )
        self._bar.start()
        name = stage.name.replace("[", r"\[")  # rich would read it as markup
        self._task = self._bar.add_task(name, start=False, total=stage.steps, numbers="")

    @hookimpl
    def step_finished(self, run: Run, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        if self._quiet:
            return
        if "loss" not in metrics:  # a measurement between epochs
            return
        self._loss = float(metrics["loss"])
        if self._bar is None:
            return
        done = step - stage.first_step
        if self._bar.tasks[0].start_time is None:  # after --resume, earlier steps are no measure of speed
            self._bar.update(self._task, completed=done - 1)
            self._bar.start_task(self._task)
        numbers = f"loss {_short(self._loss)}"
        if "samples_per_second" in metrics:
            numbers += f"  {_short(float(metrics['samples_per_second']))} samples/s"
        self._bar.update(self._task, completed=done, numbers=numbers)

    @hookimpl
    def stage_finished(self, run: Run, stage: Stage, metrics: Mapping[str, float]) -> None:
        self._stop()
        if self._quiet:
            return
        parts = [stage.name]
        if "seconds" in metrics:
            parts.append(f"{float(metrics['seconds']):.1f} s")
        if not math.isnan(self._loss):
            parts.append(f"loss {_short(self._loss)}")
        parts += [f"{name} {_short(value)}" for name, value in main_metrics(metrics).items()]
        print("  ".join(parts), file=self._file or sys.stderr, flush=True)

    @hookimpl
    def run_finished(self, run: Run, status: str) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def main_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The first metric of every task: ``{"retrieval:audio->image/R@1": 0.5}``."""
    first: dict[str, str] = {}
    for name in metrics:
        task, slash, _ = name.rpartition("/")
        if slash:
            first.setdefault(task, name)
    return {name: float(metrics[name]) for name in first.values()}


def _short(value: float) -> str:
    """Four digits, and no exponent where people do not expect one: ``0.01234``, ``12340``."""
    return f"{value:.0f}" if abs(value) >= 1000 and math.isfinite(value) else f"{value:.4g}"
