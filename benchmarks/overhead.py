"""What our training loop costs beside a bare PyTorch loop: ``python benchmarks/overhead.py [--quick]``.

Both do the same arithmetic in one process, by turns: the stage's forward pass, its loss, AdamW, clipping
and schedule. The bare loop has its batches in memory before the clock starts; ours loads them while it
trains, watches gradients and losses, writes ``metrics.jsonl`` and tells listeners. Overhead is the median
over rounds of ours over the bare one, less one, in wall time and in CPU time of all threads; for MLflow,
whose thread talks to the database, in CPU time until it has said all. A checkpoint is written after each
epoch, or every so many steps; its time stands apart.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import heading, print_head, print_row

LIMIT = 0.05
"""What our loop may cost at a realistic step."""
MLFLOW = "sqlite:///mlflow.db"
SETTLE = 2.5
"""Seconds after which MLflow's thread has said all of an epoch."""
NAMES = (
    "signal",
    "heart",
    "rhythm",
    "melody",
    "minor",
    "chord",
    "bright",
    "carbon",
    "acid",
    "north",
    "river",
)


def main() -> None:
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    print(heading(options.threads))
    print_head(
        "stage", "ms per step, bare", "ours", "overhead", "of CPU", "with MLflow, of CPU", "checkpoint, ms"
    )
    worst = 0.0
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            os.environ["MODALIGN_CACHE"] = str(Path(folder, "cache"))
            table, plan = CASES[name](256, 64) if options.quick else CASES[name](2048, 256)
            plain, tracked = (measure(table, plan, uri, options.rounds) for uri in (None, MLFLOW))
            os.chdir("/")
        worst = max(worst, plain["wall"] if name not in SMALL else 0.0)
        print_row(
            name,
            f"{1000 * plain['bare']:.1f}",
            f"{1000 * plain['bare'] * (1 + plain['wall']):.1f}",
            *(f"{100 * share:.1f} %" for share in (plain["wall"], plain["cpu"], tracked["cpu"])),
            f"{1000 * plain['checkpoint']:.0f}",
        )
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    if options.strict and worst > LIMIT:
        raise SystemExit(f"a loop costs {100 * worst:.1f} %, more than {100 * LIMIT:.0f} %")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    parser.add_argument("--rounds", type=int, help="of both loops by turns; default 15, or 5 with --quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--strict", action="store_true", help="fail if a realistic step costs more than 5 %%")
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no case {unknown[0]}; there are {', '.join(CASES)}")
    options.rounds = options.rounds or (5 if options.quick else 15)
    return options


# Stages ----------------------------------------------------------------------------------------


def text_and_text(rows: int, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names by frozen MiniLM, features cached, as in ``examples/emoji-languages.yaml``."""
    draw = random.Random(0)
    names = [
        [" ".join(draw.choices(NAMES, k=draw.randint(1, 6))) + f" {i}" for i in range(rows)] for _ in "ab"
    ]
    modalities = {m: {"encoder": "minilm"} for m in ("first", "second")}
    return dict(zip(modalities, names, strict=True)), plan_of(modalities, batch)


def image_and_text(rows: int, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pictures through a small trained transformer beside names, as in ``examples/digits.yaml``."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)

    def png() -> bytes:
        file = io.BytesIO()
        Image.fromarray(noise.integers(0, 255, (8, 8), np.uint8)).save(file, "PNG")
        return file.getvalue()

    names = [f"{NAMES[i % 10]} {i}" for i in range(rows)]
    image = {"encoder": {"name": "small-vit", "size": 16, "patch": 4}, "trainable": True}
    modalities = {"image": image, "text": {"encoder": "minilm"}}
    return {"image": [png() for _ in range(rows)], "text": names}, plan_of(modalities, batch)


def vectors(rows: int, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two linear heads on cached vectors: next to no arithmetic, so nearly all of a step is overhead."""
    import numpy as np

    noise = np.random.default_rng(0)
    sides = {"a": 256, "b": 128}
    table = {m: list(noise.standard_normal((8 * rows, w), dtype=np.float32)) for m, w in sides.items()}
    modalities = {m: {"encoder": {"name": "identity", "width": w}} for m, w in sides.items()}
    space = {"dim": 64, "alignment": "linear", "projection": "mean"}
    return table, {**plan_of(modalities, batch), "space": space}


CASES: dict[str, Callable[[int, int], tuple[dict[str, Any], dict[str, Any]]]] = {
    "text and text": text_and_text,
    "image and text": image_and_text,
    "two linear heads": vectors,
}
SMALL = {"two linear heads"}
"""Steps too small to be held to the limit."""


def plan_of(modalities: dict[str, Any], batch: int) -> dict[str, Any]:
    stage = {"name": "s", "align": list(modalities), "losses": {"infonce": 1.0}}
    return {
        "name": "overhead",
        "data": {"table": "table.parquet"},
        "modalities": modalities,
        "space": {"dim": 256, "projection": {"name": "universal", "preset": "small"}},
        "stages": [{**stage, "epochs": 1, "batch_size": batch}],
    }


# Measuring -------------------------------------------------------------------------------------


def measure(table: dict[str, Any], plan: dict[str, Any], uri: str | None, rounds: int) -> dict[str, float]:
    """The overhead of the plan's stage, measured inside the run that ``modalign.align`` makes of it."""
    import modalign
    import pyarrow as pa
    import pyarrow.parquet as pq
    from modalign.training import stage_run
    from modalign.training.loop import Trainer

    pq.write_table(pa.table(table), "table.parquet")
    found: dict[str, float] = {}

    class Measured(Trainer):
        """Measures both loops where the stage would be trained, then trains it."""

        def run(self) -> None:
            found.update(by_turns(self.job, rounds, SETTLE if uri else 0.0))
            super().run()

    if uri is not None:  # made here, so that no thread makes it while the clock runs
        import mlflow

        mlflow.MlflowClient(uri).search_experiments()
    original, stage_run.Trainer = stage_run.Trainer, Measured  # type: ignore[misc]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            modalign.align({**plan, "track": {"uri": uri}}, out=f"run-{uri is None}")
    finally:
        stage_run.Trainer = original  # type: ignore[misc]
    return found


def by_turns(job: Any, rounds: int, settle: float) -> dict[str, float]:
    """An epoch of the bare loop, one of ours, and again; the first of each is not counted."""
    from modalign.training.batches import batches
    from modalign.training.job import Position
    from modalign.training.loop import Trainer

    loaded = list(batches(job, 0, 0))
    walls, cpus, bare = [], [], []
    for number in range(rounds + 1):
        theirs = clocked(bare_epoch(job, loaded), settle)
        again = replace(job, position=Position(step=job.position.step), on_checkpoint=lambda state: None)
        trainer = Trainer(again)
        ours = clocked(trainer.run, settle)
        job.position.step = again.position.step
        if number:
            walls.append(ours[0] / theirs[0] - 1)
            cpus.append(ours[1] / theirs[1] - 1)
            bare.append(theirs[0] / len(loaded))
    written = [clocked(lambda: job.on_checkpoint(trainer.state()), 0.0)[0] for _ in range(5)]
    numbers = {"bare": bare, "wall": walls, "cpu": cpus, "checkpoint": written}
    return {name: statistics.median(values) for name, values in numbers.items()}


def clocked(work: Callable[[], None], settle: float) -> tuple[float, float]:
    """Seconds of wall time, and of all threads' CPU time until ``settle`` seconds later."""
    start, used = time.perf_counter(), time.process_time()
    work()
    wall = time.perf_counter() - start
    time.sleep(settle)
    return wall, time.process_time() - used


def bare_epoch(job: Any, loaded: list[Any]) -> Callable[[], None]:
    """An epoch as one would write it for this stage alone."""
    import torch
    from modalign.training.optim import build_optimizer, build_schedule
    from modalign.training.stage import StageModel, embeddings, stage_pairs

    model = StageModel(job.space, job.trained, 1 / job.plan.space.temperature.min)
    trainable = [p for part in model.parameters_by_part().values() for p in part]
    optimizer = build_optimizer(job.stage, trainable)
    schedule = build_schedule(job.stage, optimizer, len(loaded))
    ((_, loss),) = job.losses.values()
    pairs = stage_pairs(job.stage, job.trained)

    def epoch() -> None:
        model.train()
        for batch in loaded:
            outputs, scale = model(batch.loaded)
            value = loss(embeddings(outputs, batch.loaded, scale, pairs, batch.labels))
            value.backward()
            torch.nn.utils.clip_grad_norm_(trainable, job.stage.clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()

    return epoch


if __name__ == "__main__":
    main()
