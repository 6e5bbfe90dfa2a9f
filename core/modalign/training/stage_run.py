"""Runs one stage: encode, train, compare what was frozen, measure, write."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modalign.contracts import Stage

from .agree import agreed
from .anchors import with_anchors
from .context import Context
from .data import Dataset
from .evaluate import TableSplit, build_task
from .job import Metrics, Position, RunFailed, StageJob, build_losses, steps_per_epoch
from .loop import Trainer
from .plan import StagePlan
from .reader import Reader
from .rng import seeded
from .sampler import Epochs
from .solve import solve_stage
from .stage import Trained, count_parameters, hash_parts, trained_parts
from .waiting import Waiting

log = logging.getLogger("modalign")


def run_stage(
    run: Context, index: int, stage: StagePlan, new: list[str], state: dict[str, Any] | None
) -> None:
    """Train one stage from its beginning, or from a checkpoint's ``state`` of its trainer.

    Inputs:
        new: the modalities that this stage brings into the space.
    """
    for m in run.space.modalities:
        if m in stage.align or f"encoder:{m}" in stage.unfreeze:
            run.space.encoder(m)
    run.space.to(run.fabric.device)
    first = run.prepared.start is None and index == run.plan.first_trained
    trained = trained_parts(run.plan, stage, new, first=first)
    before = state["before"] if state else hash_parts(run.space)
    data = run.plan.stage_data(stage)
    assert data is not None
    dataset = run.prepared.dataset(data)
    epochs = stage_epochs(run.plan.seed, stage, dataset)
    solved = stage.closed_form is not None
    told = Stage(
        name=stage.name,
        index=index,
        epochs=1 if solved else stage.epochs,
        steps=1 if solved else steps_per_epoch(stage, epochs) * stage.epochs,
        batch_size=stage.batch_size,
        first_step=run.step - (state["position"]["stage_step"] if state else 0),
        config=stage.model_dump(mode="json"),
    )
    run.event("stage_started", stage=told)
    readers = {
        m: run.reader(
            dataset,
            m,
            frozen=f"encoder:{m}" not in trained,
            augmented=not solved,
            cached=not epochs.streamed,
        )
        for m in stage.align
    }
    rows = [] if epochs.streamed else [int(row) for table in epochs.tables for row in table]
    encoding = encode(run, readers, rows)

    waiting = Waiting()

    def on_step(step: int, metrics: Metrics) -> None:
        run.step = step
        waiting.note(metrics, stage.batch_size * stage.accumulate)
        run.record(stage.name, metrics)
        run.event("step_finished", stage=told, step=step, metrics=metrics)

    if solved:
        position = solve_stage(run.fabric, run.space, stage, trained, epochs, readers, lambda: run.stopping)
        position.step = run.step + 1
        on_step(position.step, {"loss": position.loss})
    else:
        with seeded(run.plan.seed, "losses", stage.name):
            losses = build_losses(stage)
        job = StageJob(
            fabric=run.fabric,
            plan=run.plan,
            stage=stage,
            space=run.space,
            trained=trained,
            dataset=dataset,
            epochs=epochs,
            readers=with_anchors(run.space, stage, trained, readers, losses, rows),
            losses=losses,
            folder=run.folder.path,
            on_step=on_step,
            on_checkpoint=lambda now: run.checkpoint(index, {**now, "before": before}),
            measure=selector(run, stage, dataset, trained),
            stopping=lambda: run.stopping,
        )
        job.position.step = run.step
        trainer = Trainer(job)
        if state:
            trainer.restore(state)
        trainer.run()
        position = job.position
    advice = waiting.advice(run.plan.workers, [m for m, reader in readers.items() if reader.cache is None])
    if advice is not None:
        log.warning("stage %s: %s", stage.name, advice)
    finish(run, told, Done(position, trained, epochs.size, readers, encoding, waiting.data, before, new))


@dataclass(frozen=True)
class Done:
    """A stage whose last step is made.

    Inputs:
        rows: it learnt from.
        encoding: seconds spent on filling the feature cache.
        waited: seconds that steps of this process waited for data.
        before: the digest of every part when the stage began.
        new: the modalities it brought into the space.
    """

    position: Position
    trained: Trained
    rows: int
    readers: dict[str, Reader]
    encoding: float
    waited: float
    before: dict[str, str]
    new: list[str]


def stage_epochs(seed: int, stage: StagePlan, dataset: Dataset) -> Epochs:
    """The rows a stage trains on: those that hold at least two of its modalities.

    Raises:
        RunFailed: if there are none.
    """
    usable = dataset.usable("train", stage.align, min(2, len(stage.align)))
    by = stage.bucket_by
    epochs = Epochs(
        usable,
        dataset.weights,
        stage.batch_size,
        seed,
        stage.name,
        orders=dataset.orders(usable, seed, stage.name),
        size_of=None if by is None else lambda rows: dataset.sizes(by, rows),
    )
    if epochs.size == 0:
        raise RunFailed(f"stage {stage.name}: no row of split 'train' holds two of {', '.join(stage.align)}")
    rows = len(dataset.splits.get("train", ()))
    if epochs.size < rows:
        few = f"{rows - epochs.size} of {rows} rows hold fewer than two of {', '.join(stage.align)}"
        log.info("stage %s: %s", stage.name, few)
    return epochs


def encode(run: Context, readers: dict[str, Reader], rows: list[int]) -> float:
    """Fill the feature cache of every frozen encoder, each process a share; returns the seconds."""
    begun = time.perf_counter()
    for name, reader in readers.items():
        started, before = time.perf_counter(), reader.encoded
        for _ in reader.prepare(rows, run.fabric.global_rank, run.fabric.world_size):
            if run.stopping:
                break
        if agreed(run.fabric, run.stopping):  # or the others would wait for one that has left
            raise KeyboardInterrupt
        if reader.cache is not None:
            reader.cache.refresh()
            reader.index(rows)
        count = reader.encoded - before
        if count:
            log.info("encoded %d %s samples in %.1f s", count, name, time.perf_counter() - started)
    return time.perf_counter() - begun


def selector(
    run: Context, stage: StagePlan, dataset: Dataset, trained: Trained
) -> Callable[[], tuple[float, bool]] | None:
    """Measures the task of ``select`` on the stage's own data; None if the stage has none."""
    select = stage.select
    if select is None:
        return None
    built = {name: (task, plan.label) for plan in run.plan.tasks for name, task in [build_task(plan)]}
    task, label = built[select.task]
    moving = {m: run.reader(dataset, m, frozen=False) for m in task.modalities if f"encoder:{m}" in trained}

    def measure() -> tuple[float, bool]:
        split = TableSplit(select.split, dataset, lambda m: moving.get(m) or run.reader(dataset, m), label)
        return float(task.run(run.space, split).metrics[task.primary]), task.higher_is_better

    return measure


def finish(run: Context, told: Stage, done: Done) -> None:
    """What follows the last step; the checkpoint at its end makes the stage done.

    Raises:
        RunFailed: if a frozen part changed.
    """
    space, trained, position, before = run.space, done.trained, done.position, done.before
    if position.nonfinite:
        log.warning("stage %s: %d steps were not finite and skipped", told.name, position.nonfinite)
    if math.isnan(position.loss):
        raise RunFailed(
            f"stage {told.name}: no step had a finite loss and gradient. Lower lr, or look at the data"
        )
    after = hash_parts(space)
    changed = [p for p in before if p not in trained and before[p] != after.get(p)]
    if changed:
        parts = ", ".join(changed)
        raise RunFailed(f"stage {told.name}: frozen parts changed: {parts}; does a module write to buffers?")
    counts = count_parameters(space, trained)
    space.requires_grad_(False).eval()
    run.stages.append(
        {
            "name": told.name,
            "align": list(told.config["align"]),
            "new": done.new,
            "rows": done.rows,
            "epochs": position.epoch,
            "steps": position.stage_step,
            "encode_seconds": round(done.encoding, 3),
            "seconds": round(position.seconds, 3),
            "data_seconds": round(done.waited, 3),
            "trained": sorted(trained.parts),
            "trained_parameters": sum(n for part, n in counts.items() if not part.startswith("encoder:")),
            "trained_encoder_parameters": sum(n for p, n in counts.items() if p.startswith("encoder:")),
            "loss": position.loss,
            "nonfinite_steps": position.nonfinite,
            "unchanged": [p for p in before if before[p] == after.get(p) and _owner(p) not in done.new],
            "cache": {m: use for m, reader in done.readers.items() if (use := reader.cache_use())},
        }
    )
    run.tasks = {}
    run.write_space()  # what was learnt is there, whatever a task does
    run.measure()
    run.stages[-1]["tasks"] = run.metrics_of_tasks()
    metrics = {f"{task}/{k}": v for task, found in run.metrics_of_tasks().items() for k, v in found.items()}
    run.write()
    run.record(told.name, metrics)
    run.event("stage_finished", stage=told, metrics={**metrics, "seconds": position.seconds})
    run.checkpoint(told.index + 1, None)


def _owner(part: str) -> str:
    return part.removeprefix("encoder:")
