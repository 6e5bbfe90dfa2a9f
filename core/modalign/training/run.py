"""A run: every stage of a plan in turn, resumable and tracked."""

from __future__ import annotations

import copy
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from modalign.contracts import Encoder, Run
from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space
from modalign.space_files import load

from .build import (
    absolute_paths,
    build_encoders,
    build_space,
    enter_stage,
    git_commit,
    input_digests,
    versions,
)
from .checkpoint import latest_checkpoint
from .checks import Prepared, check_widths, prepare
from .context import Context
from .fabric import build_fabric, launch
from .metric_log import MetricLog
from .plan import Plan
from .plan_file import read_plan
from .quarantine import Quarantine
from .run_folder import RunFolder
from .sharded_checkpoint import whole_saved
from .speed import matrix_products
from .stage_run import run_stage
from .track.names import redacted
from .watch import watched

log = logging.getLogger("modalign")


def align(
    plan: str | os.PathLike[str] | dict[str, Any] | Plan,
    *,
    start: Space | str | os.PathLike[str] | None = None,
    resume: bool = False,
    out: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
) -> Space:
    """Train a space as a plan says, stage by stage.

    Inputs:
        plan: a YAML file, a mapping or a ``Plan``.
        start: a space, or its folder, that the plan's modalities are added to; it stays as it is.
        resume: go on with the interrupted run in the run folder, at the very step.
        out: the run folder; default ``runs/<plan name>``.
        overrides: ``key.path=value`` strings, applied to the plan.

    Raises:
        UserError: for anything wrong with plan, data or arguments; nothing was written then.
        RunFailed, TooManyBad: when the run cannot go on.
        KeyboardInterrupt: when it was interrupted; ``resume=True`` goes on.
    """
    space = load(start) if isinstance(start, str | os.PathLike) else copy.deepcopy(start)
    prepared = prepare(read_plan(plan, overrides), space)
    folder = RunFolder(Path(out) if out else Path("runs") / prepared.plan.name)
    if isinstance(start, str | os.PathLike) and Path(start).absolute().is_relative_to(folder.path):
        raise UserError(
            f"the space lies in {folder.path}, which this run would write: give the plan another name, "
            "or choose another folder with --out"
        )
    resolved = redacted(absolute_paths(prepared.plan.model_dump(mode="json"), prepared.folder))
    inputs = input_digests(prepared)
    folder.check(resolved, inputs, resume)
    fabric = build_fabric(prepared.plan.fabric)
    with ExitStack() as stack:
        watch = stack.enter_context(watched(fabric))
        launch(fabric, prepared.plan.fabric.timeout)
        if not fabric.is_global_zero:
            log.setLevel(logging.WARNING)
        encoders = build_encoders(prepared.plan)
        space = prepared.start or build_space(prepared.plan)
        for m in space.modalities:
            space.encoder(m)  # here a missing or other one shows, before anything is written
        check_widths(prepared.plan, encoders, space)
        metrics = None
        if fabric.is_global_zero:
            folder.claim(resolved, inputs, resume)
            stack.callback(folder.release)
            metrics = MetricLog(folder.path / "metrics.jsonl")
            stack.callback(metrics.close)
        fabric.barrier()
        state = latest_checkpoint(folder.checkpoints, fabric) if resume else None
        if metrics is not None:
            metrics.rewind(state["metrics_position"] if state else 0)
        fabric.barrier()
        run = Context(
            prepared=prepared,
            folder=folder,
            fabric=fabric,
            space=space,
            quarantine=Quarantine(folder.path / "quarantine.csv"),
            metrics=metrics,
            about=describe(prepared, resolved, inputs, folder.path, resumed=resume),
            earlier=list(space.stages),
        )
        stack.enter_context(listeners(run))
        stack.enter_context(stop_signals(run))
        stack.enter_context(matrix_products(run.plan))
        status = "failed"
        try:
            run.event("run_started")
            all_stages(run, encoders, state)
            status = "ok"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            if watch:
                watch.leave()
            run.event("run_finished", status=status)
    return space


def all_stages(run: Context, encoders: dict[str, Encoder], state: dict[str, Any] | None) -> None:
    """Every stage, or those that a checkpoint's ``state`` leaves to be done."""
    done, stages = 0, run.plan.stages
    if state is not None:
        done, run.step, run.stages = state["stage"], state["step"], state["stages"]
    for i, stage in enumerate(stages):
        founders = run.prepared.start is None and i == 0
        new = enter_stage(run.plan, run.space, stage, encoders, founders=founders)
        if i < done:
            continue
        trainer = None
        if state is not None and i == done:
            trainer = state["trainer"]
            saved = trainer["space"] if trainer else state["space"]
            run.space.load_state_dict({k: whole_saved(v) for k, v in saved.items()}, strict=False)
        run_stage(run, i, stage, new, trainer)
    if state is not None and done == len(stages):  # it was finished: measure and write once more
        run.space.load_state_dict(state["space"], strict=False)
        run.measure()
        run.write()
    run.space.requires_grad_(False).eval().cpu()


def describe(
    prepared: Prepared, resolved: dict[str, Any], inputs: dict[str, str], folder: Path, resumed: bool
) -> Run:
    """What listeners are told about the run."""
    used = {p.distribution: p.version for p in loader.plugins() if p.problem is None}
    return Run(
        name=prepared.plan.name,
        folder=folder,
        plan=resolved,
        versions=versions(used),
        data_digest=inputs["data"],
        git_commit=git_commit(prepared.folder),
        resumed=resumed,
    )


def listeners(run: Context) -> AbstractContextManager[None]:
    """The run's own listeners, beside those of plugins: the progress bar and MLflow."""
    if not run.fabric.is_global_zero:
        return nullcontext()
    from .progress import Progress
    from .track.tracking import Tracking

    ours: dict[str, object] = {"progress": Progress(quiet=not log.isEnabledFor(logging.INFO))}
    if run.plan.track.uri is not None:
        ours["mlflow"] = Tracking(run.plan.track.uri, run.plan.track.experiment or run.plan.name)
    return loader.registered(**ours)


@contextmanager
def stop_signals(run: Context) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the step and writes a checkpoint; a second ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stopping = True
        log.warning("stopping after this step; once more stops at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
