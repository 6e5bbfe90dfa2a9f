"""Says what a plan would do, need and take, without writing anything."""

from __future__ import annotations

import os
from collections.abc import Iterable

from modalign import report
from modalign.space import Space

from .data import Dataset
from .health import health
from .held import COPY
from .peek import Encoding
from .predict import checked, predict, predict_stages
from .prediction import StagePrediction

__all__ = ["describe", "predict"]


def describe(plan: str | os.PathLike[str], overrides: Iterable[str] = (), start: str | None = None) -> str:
    """What every stage of a checked plan trains, needs and takes, as text.

    Raises:
        UserError: if anything is wrong with it.
    """
    prepared = checked(plan, overrides, start)
    stages, space = predict_stages(prepared)
    parts = [report.columns(overview(stages)), *(report.columns(details(stage)) for stage in stages)]
    parts += [report.columns(state(dataset, space)) for dataset in prepared.datasets.values()]
    return "\n\n".join([*parts, *(advice(stage) for stage in stages if not stage.fits), total(stages)])


def state(dataset: Dataset, space: Space) -> list[list[str]]:
    """What is missing, doubled, shared between splits or slow to read in the data."""
    held = [m for m in space.modalities if any(m in table.columns for table in dataset.tables)]
    rows = health(dataset, held, space.reader)
    return (
        [list(rows[0]), *(["" if v is None else str(v) for v in row.values()] for row in rows)]
        if rows
        else []
    )


def overview(stages: Iterable[StagePrediction]) -> list[list[str]]:
    """A row per stage."""
    rows = [
        ["stage", "aligns", "rows", "epochs", "steps", "trained", "+ encoders", "memory", "time", "trains"]
    ]
    for s in stages:
        encoder = sum(n for name, n in s.trained.items() if name.startswith("encoder:"))
        rows.append(
            [
                s.name,
                ", ".join(s.align),
                f"{s.rows:,}",
                str(s.epochs),
                f"{s.steps:,}",
                f"{sum(s.trained.values()) - encoder:,}",
                f"{encoder:,}",
                size(s.needed),
                duration(s.seconds),
                ", ".join(sorted(s.trained)),
            ]
        )
    return rows


def details(stage: StagePrediction) -> list[list[str]]:
    """A table of one stage: what is needed, for what."""
    s = stage
    rows = [[s.name, "", ""]]
    rows += [[f"  trained {part}", f"{n:,}", "parameters"] for part, n in s.trained.items()]
    rows += [[f"  frozen {part}", f"{n:,}", "parameters"] for part, n in s.frozen.items()]
    notes = {"activations": f"of {s.rows_at_once:,} rows at once"}
    if s.tile:
        wide = "whole" if s.batch_size <= s.tile else f"in tiles of {s.tile:,} rows where they stream"
        notes["losses"] = f"of a batch of {s.batch_size:,} rows, {wide}"
    if s.pieces:
        notes[COPY] = f"{s.pieces} of them, and layers that are whole meanwhile: a rough estimate"
    rows += [[f"  {what}", size(n), notes.get(what, "")] for what, n in s.memory.items()]
    fits = "it fits" if s.fits else "it does not fit"
    rows.append(["  memory in all", size(s.needed), f"of {size(s.free)} free: {fits}"])
    rows += [
        [f"  features of {e.modality}", size(e.disk), cache(e)] for e in s.encodings if e.memory or e.cached
    ]
    if s.encode_seconds:
        rows.append(["  time to read and encode", duration(s.encode_seconds), "what is not in the cache"])
    rows.append(["  time of a step", duration(s.step_seconds), f"{s.steps:,} of them"])
    without = "without tasks and compiling" if not s.pieces else "without tasks and what fsdp sends"
    rows.append(["  time in all", duration(s.seconds), without])
    return rows


def cache(e: Encoding) -> str:
    """What the feature cache has and gets."""
    about = "" if e.exact else "about "
    share = f"{100 * e.cached / max(1, e.samples):.0f} %"
    return f"on disk, new: {about}{e.samples - e.cached:,} of {e.samples:,} samples ({share} cached)"


def advice(stage: StagePrediction) -> str:
    """What to do about memory that is not enough."""
    if stage.chunk is not None:
        return (
            f"stage {stage.name} needs more memory than there is: write chunk_size: {stage.chunk} into it "
            "(the loss still sees the whole batch)"
        )
    ways = ["lower batch_size", "take smaller encoders"]
    if stage.pieces:
        ways.insert(0, "take more processes")
    elif not stage.recomputes:
        ways.insert(0, "write activation_checkpointing: true into it")
    return (
        f"stage {stage.name} needs more memory than there is, one row at a time too: "
        f"{', '.join(ways[:-1])}, or {ways[-1]}"
    )


def total(stages: list[StagePrediction]) -> str:
    """The last line."""
    disk = sum(e.disk for s in stages for e in s.encodings)
    time, memory = duration(sum(s.seconds for s in stages)), max(s.needed for s in stages)
    fits = "it fits" if all(s.fits for s in stages) else "it does not fit"
    return f"total: {time}, {size(memory)} of memory ({fits}), {size(disk)} of new features on disk"


def size(count: float) -> str:
    """Bytes in words: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:,.0f} {unit}"
        count /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """Seconds in words: 2 h 5 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
