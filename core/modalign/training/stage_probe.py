"""Probes one stage: what it reads, encodes and trains on, a few rows of it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modalign.losses.primitives.scores import tile_size
from modalign.space_files import weights

from .anchors import MOST_BYTES, with_anchors
from .context import Context
from .held import BUCKETS, COPY, held, pieces_of, processes
from .job import RunFailed, StageJob, build_losses, steps_per_epoch
from .peek import look, peeking
from .plan import FabricPlan, StagePlan
from .prediction import SHARE, StagePrediction, StepCost
from .probe import LOSSES_FIRST, StepProbe, grow
from .sampler import Epochs
from .solve import ROWS, solve_stage
from .stage import StageModel, Trained, count_parameters
from .stage_run import stage_epochs

SECONDS = 8.0
"""What the probes of all stages may take together, about."""
MOST = 1 << 16
"""Rows looked at."""
IN_FLIGHT = 4
"""Batches in memory at once: one trained on, two waiting, one being read."""


class StageProbe:
    """One stage, its readers and what they find.

    Inputs:
        free: bytes of memory.
        scratch: a folder that is thrown away.
        encoded: the readers whose samples earlier stages will have encoded; this stage's are added.
    """

    def __init__(
        self,
        run: Context,
        stage: StagePlan,
        trained: Trained,
        free: int,
        scratch: Path,
        encoded: set[int],
    ) -> None:
        self.run, self.stage, self.trained, self.free, self.scratch = run, stage, trained, free, scratch
        self.plan, self.space = run.plan, run.space
        data = self.plan.stage_data(stage)
        assert data is not None
        self.dataset = run.prepared.dataset(data)
        self.epochs = stage_epochs(self.plan.seed, stage, self.dataset)
        self.on_cpu = run.fabric.device.type == "cpu"
        self.room = int(SHARE.get(run.fabric.device.type, 0.9) * free)
        self.world, self.pieces = processes(self.plan.fabric), pieces_of(self.plan.fabric)
        self.seconds = SECONDS / len(self.plan.stages)
        for m in self.space.modalities:
            if m in stage.align or f"encoder:{m}" in stage.unfreeze:
                self.space.encoder(m)
        self.space.to(run.fabric.device)
        self.readers = {
            m: peeking(
                run.reader(
                    self.dataset,
                    m,
                    frozen=f"encoder:{m}" not in trained,
                    augmented=stage.closed_form is None,
                    cached=not self.epochs.streamed,
                )
            )
            for m in stage.align
        }
        self.begun = time.perf_counter()
        self.rows = self.epochs.slice(0, 0, MOST)
        found = {
            m: look(reader, self.rows.tolist(), self.epochs.size, self.seconds / 2 / len(self.readers))
            for m, reader in self.readers.items()
        }
        for m, reader in self.readers.items():
            if id(reader) in encoded and reader.cache is not None:
                found[m] = replace(found[m], cached=found[m].samples, disk=0)
            encoded.add(id(reader))
        self.encodings = tuple(found.values())
        few = min(int(self.seconds / 8 / max(e.each, 1e-9)) for e in self.encodings)
        self.some = self.rows[: max(2, few)]
        """Rows that can be read and encoded in no time."""
        for reader in self.readers.values():
            for _ in reader.prepare(self.some[: stage.batch_size].tolist()):
                pass

    def predict(self) -> StagePrediction:
        return self._solved() if self.stage.closed_form is not None else self._trained()

    def _solved(self) -> StagePrediction:
        """A pass over the features, and the solution."""
        assert self.stage.closed_form is not None

        def solve(count: int) -> None:
            rows = self.some[:count].tolist()
            epochs = Epochs([rows], [None], len(rows), self.plan.seed, self.stage.name)
            run = self.run
            with suppress(RunFailed):  # too few rows to be solved; the work was done
                solve_stage(
                    run.fabric, run.space, self.stage, self.trained, epochs, self.readers, lambda: False
                )

        StageModel(self.space, self.trained, 1.0)
        sizes = grow(solve, len(self.some[:ROWS]), self.seconds / 3, self.free / 3)
        memory = {"moments and features": round(sizes.memory(min(ROWS, self.epochs.size)))}
        seconds = sizes.seconds(self.epochs.size / self.world)
        return self._prediction(memory, 1, 1, min(ROWS, self.epochs.size), seconds, None, None)

    def _trained(self) -> StagePrediction:
        """Steps of an optimiser."""
        stage, run = self.stage, self.run
        plan = self.plan.model_copy(
            update={"speed": self.plan.speed.model_copy(update={"compile": False}), "fabric": FabricPlan()}
        )
        losses = build_losses(stage)
        rows = [int(row) for row in self.some]
        small = self.epochs.size * self.space.dim * 4 <= MOST_BYTES
        job = StageJob(
            fabric=run.fabric,
            plan=plan,
            stage=stage.model_copy(update={"chunk_size": None, "accumulate": 1}),
            space=self.space,
            trained=self.trained,
            dataset=self.dataset,
            epochs=self.epochs,
            readers=with_anchors(self.space, stage, self.trained, self.readers, losses, rows)
            if small
            else self.readers,
            losses=losses,
            folder=self.scratch,
            on_step=lambda step, metrics: None,
            on_checkpoint=lambda state: None,
            measure=None,
            stopping=lambda: False,
        )
        probe = StepProbe(job, self.some)
        batch = min(stage.batch_size, self.epochs.size)
        local = -(-batch // self.world)
        chunk = stage.chunk_size if stage.chunk_size and stage.chunk_size < local else None
        at_once = chunk or local
        spent = time.perf_counter() - self.begun  # where little is to be encoded, much is left
        seconds = max(self.seconds / 3, self.seconds * 7 / 8 - spent)
        sizes = grow(probe.step, at_once, seconds, self.free / 3, probe.load)
        loading = probe.loading * local / len(probe.batch.rows)
        alone = grow(  # they compare all with all
            probe.losses,
            batch,
            self.seconds / 8,
            self.free / 3,
            probe.embed,
            first=LOSSES_FIRST,
            power=2,
        )
        outputs = probe.output_bytes * batch // alone.most
        gradients = sum(4 * p.numel() for p in probe.trainer.trainable)
        step = StepCost(sizes, alone, gradients, outputs, batch, local)
        memory = {**held(probe.trainer, self.world, self.pieces), **step.memory(chunk)}
        if self.on_cpu:
            data = probe.row_bytes * local * IN_FLIGHT * (2 if stage.latent_mix else 1)
            still = sum(x is not self.readers[m] for m, x in job.readers.items())
            data += still * self.epochs.size * self.space.dim * 4
            memory["data"] = data + sum(e.items for e in self.encodings)
        seconds = step.seconds(chunk)
        seconds = (seconds + loading if self.on_cpu else max(seconds, loading)) * stage.accumulate
        steps = steps_per_epoch(stage, self.epochs) * stage.epochs
        tile = tile_size(run.fabric.device, 4)
        return self._prediction(memory, steps, stage.epochs, at_once, seconds, tile, step)

    def _prediction(
        self,
        memory: dict[str, int],
        steps: int,
        epochs: int,
        at_once: int,
        seconds: float,
        tile: int | None,
        step: StepCost | None,
    ) -> StagePrediction:
        counts = count_parameters(self.space, self.trained)
        every = count_parameters(self.space, Trained(frozenset(part for part, _ in self.space.parts())))
        memory = {"parameters": sum(4 * n for n in every.values()), **memory}
        if self.on_cpu and step:
            always = ("parameters", "AdamW's moments", "the momentum tower", COPY, BUCKETS, "data")
            copies = sum(t.nbytes for t in weights(self.space).values()) * (2 + bool(self.stage.select))
            copies += 8 * sum(counts.values())  # of AdamW's moments: the first process gathers all of them
            if self.pieces and self.plan.checkpoint.sharded:
                copies = -(-copies // self.pieces)
            _raise(memory, "writing checkpoints", sum(memory.get(k, 0) for k in always) + copies)
        _raise(memory, "encoding", memory["parameters"] + max(e.memory for e in self.encodings))
        found = StagePrediction(
            name=self.stage.name,
            align=tuple(self.stage.align),
            rows=self.epochs.size,
            epochs=epochs,
            steps=steps,
            batch_size=self.stage.batch_size,
            rows_at_once=at_once,
            trained=counts,
            frozen={part: n for part, n in every.items() if part not in counts},
            memory=memory,
            free=self.free,
            room=self.room,
            encodings=self.encodings,
            tile=tile,
            encode_seconds=sum(e.seconds for e in self.encodings) / self.world,
            step_seconds=seconds,
            pieces=self.pieces if step else None,
            recomputes=self.stage.activation_checkpointing,
        )
        if found.fits or step is None:
            return found
        others = found.needed - sum(memory[k] for k in step.memory(None))
        return replace(found, chunk=step.largest(at_once, self.room - others))


def _raise(memory: dict[str, int], name: str, to: int) -> None:
    """Another moment than a step may be the one that needs most."""
    if (more := to - sum(memory.values())) > 0:
        memory[name] = more
