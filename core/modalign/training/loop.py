"""The only training loop: one stage, from any step on, to its end."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modalign.contracts import Embeddings
from modalign.space_files import weights

from .agree import agreed, average
from .batches import RowBatch, batches
from .content import Loaded, Outputs, to_device
from .fabric import is_fsdp, mesh_of
from .fsdp import clip, copy_back, shard
from .gather import gather_batch, per_process
from .grad_cache import cached_backward
from .job import Metrics, RunFailed, StageJob, steps_per_epoch
from .key_tower import build_key_tower
from .memory import ChunkSize, together
from .optim import build_optimizer, build_schedule
from .prefetch import Prefetcher
from .rng import seed_all, seeded
from .speed import stage_speed
from .stage import StageModel, embeddings, stage_pairs
from .stand_ins import stand_ins
from .trainer_state import restore_trainer, trainer_state
from .whole import is_sharded


class Trainer:
    """Trains one stage; ``state`` and ``restore`` are exact, to the bit."""

    def __init__(self, job: StageJob) -> None:
        self.job = job
        needs = frozenset[str]().union(*(loss.needs for _, loss in job.losses.values()))
        self.sharded = is_fsdp(job.fabric)
        space = copy.deepcopy(job.space) if self.sharded else job.space
        self.model = StageModel(
            space, job.trained, 1 / job.plan.space.temperature.min, teacher="teacher" in needs
        )
        self.model.speed = stage_speed(job)
        if self.sharded or (job.fabric.world_size > 1 and space.projection.provides):
            self.model.stand_ins = stand_ins(job)
        self.losses = nn.ModuleDict({name: loss for name, (_, loss) in job.losses.items()})
        self.losses.to(job.fabric.device)
        with seeded(job.plan.seed, "bind", job.stage.name):
            for _, loss in job.losses.values():
                loss.bind(job.space)
        self.tower = build_key_tower(self.model, [loss for _, loss in job.losses.values()])
        self.wrapped = job.fabric.setup_module(self.model)
        if self.tower and self.sharded:
            self.tower.shard(lambda model: shard(model, mesh_of(job.fabric)))
        own = [p for p in self.losses.parameters() if p.requires_grad]
        moved = [p for part in self.model.parameters_by_part().values() for p in part]
        self.trainable = moved + own
        self.apart = own + [p for p in moved if self.sharded and not is_sharded(p)]
        optimizer = build_optimizer(job.stage, self.trainable)
        steps = steps_per_epoch(job.stage, job.epochs) * job.stage.epochs
        self.schedule = build_schedule(job.stage, optimizer, steps)
        self.optimizer: Any = job.fabric.setup_optimizers(optimizer)
        self.pairs = stage_pairs(job.stage, job.trained)
        self.best_weights: dict[str, Tensor] | None = None
        self.chunk = ChunkSize(job.stage.chunk_size, alone=job.fabric.world_size == 1)

    # State ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a resumed process needs to go on as if nothing had happened."""
        return trainer_state(self)

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``, in a trainer of a space that has its weights already."""
        restore_trainer(self, state)

    # Training ------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the position to the end of the stage.

        Raises:
            KeyboardInterrupt: after a checkpoint, when the user asked to stop.
            RunFailed: when too many losses were not finite.
        """
        job, stage = self.job, self.job.stage
        if not any((job.position.stage_step, job.position.epoch)):
            # Each process its own draws, or their rows would share one dropout mask.
            rank = job.fabric.global_rank
            seed_all(job.plan.seed, "stage", stage.name, *([rank] if rank else []))
        every = job.plan.checkpoint.every_steps
        while not job.position.done and job.position.epoch < stage.epochs:
            for metrics in self._epoch():
                job.on_step(job.position.step, metrics)
                stop = agreed(job.fabric, job.stopping())
                if stop or (every and job.position.step % every == 0):
                    job.on_checkpoint(self.state())
                if stop:
                    raise KeyboardInterrupt
            job.position = replace(job.position, epoch=job.position.epoch + 1, batch=0)
            self._select()
            job.on_checkpoint(self.state())
        if self.sharded:
            copy_back(self.model, job.space, everything=True)
        if self.best_weights is not None:
            job.space.load_state_dict(self.best_weights, strict=False)

    def _epoch(self) -> Iterator[Metrics]:
        """The rest of the current epoch; one optimiser step per item."""
        job, position, stage = self.job, self.job.position, self.job.stage
        self.wrapped.train()
        group: list[RowBatch] = []
        started = time.perf_counter()
        with Prefetcher(batches(job, position.epoch, position.batch)) as loading:
            for number, batch in enumerate(loading, position.batch + 1):
                group.append(batch)
                if len(group) < stage.accumulate and number < job.epochs.batches:
                    continue
                rate = self.optimizer.param_groups[0]["lr"]
                metrics = self._step(group)
                now = time.perf_counter()
                position.seconds += now - started
                metrics |= {
                    "lr": rate,
                    "scale": float(self.model.scale().detach()),
                    "samples_per_second": sum(len(batch.rows) for batch in group) / max(now - started, 1e-9),
                    "data_seconds": loading.waited(),
                }
                started, group = now, []
                position.batch = number
                position.step += 1
                position.stage_step += 1
                yield metrics

    def _gradient(self, group: list[RowBatch]) -> Metrics:
        """Add the gradient of a few batches; their loss and its parts."""
        totals: Metrics = {}
        for i, batch in enumerate(group):
            value, parts = self._backward(batch, 1 / len(group), last=i == len(group) - 1)
            for name, part in {"loss": value, **parts}.items():
                totals[name] = totals.get(name, 0.0) + part / len(group)
            if not math.isfinite(value):
                break
        return totals

    def _undo(self, batch: RowBatch) -> None:
        """Take back what a failed step left behind."""
        if self.job.fabric.world_size > 1:
            # Where the forward pass did not fail, DDP waits for gradients: a step over no rows gives it some.
            none = {m: Loaded(None, x.present[:0], x.ids[:0]) for m, x in batch.loaded.items()}
            outputs, scale = self.wrapped(none)
            self.job.fabric.backward(sum((out["vectors"].sum() for out in outputs.values()), scale * 0.0))
        self.optimizer.zero_grad()

    def _step(self, group: list[RowBatch]) -> Metrics:
        """One optimiser step over a few batches; skipped if a loss is not finite."""
        job, fabric = self.job, self.job.fabric
        rows = max(per_process(len(batch.rows), fabric.world_size) for batch in group)
        totals = self.chunk.run(lambda: self._gradient(group), lambda: self._undo(group[0]), rows)
        if not math.isfinite(totals["loss"]):
            self.optimizer.zero_grad()
            return self._skipped(group, totals["loss"])
        if fabric.world_size > 1:
            average(fabric, self.apart)
        if self.sharded:
            norm: Tensor | None = clip(self.trainable, job.stage.clip)
        elif job.stage.clip is not None:
            norm = fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=job.stage.clip, error_if_nonfinite=False
            )
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.trainable if p.grad is not None])
        scaled = str(job.plan.fabric.precision) == "16-mixed"  # its scaler skips such steps by itself
        if norm is not None and not scaled and not math.isfinite(float(norm)):
            self.optimizer.zero_grad()
            return self._skipped(group, totals["loss"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        for _, module in job.losses.values():
            module.after_step()
        if self.tower:
            self.tower.update(self.model)
        job.position.loss = totals["loss"]
        return {**totals, "grad_norm": float(norm) if norm is not None else 0.0}

    def _backward(self, batch: RowBatch, share: float, last: bool) -> tuple[float, Metrics]:
        """Add a batch's share of the step's gradient; the loss and its parts. Nothing if not finite."""
        fabric = self.job.fabric
        local = {
            m: Loaded(
                None if x.content is None else to_device(x.content, fabric.device),
                x.present.to(fabric.device),
                x.ids.to(fabric.device),
            )
            for m, x in batch.loaded.items()
        }
        labels = None if batch.labels is None else batch.labels.to(fabric.device)

        rows = per_process(len(batch.rows), fabric.world_size)

        def loss_of(outputs: Outputs, scale: Tensor) -> tuple[Tensor, Metrics]:
            return self._loss(batch, labels, local, outputs, scale)

        if size := self.chunk.below(rows):
            count = -(-rows // size)
            return cached_backward(fabric, self.wrapped, local, size, loss_of, share, last, count)
        with fabric.no_backward_sync(self.wrapped, enabled=not last):
            loss, parts = loss_of(*together(fabric, lambda: self.wrapped(local)))
            value = float(loss.detach())
            if math.isfinite(value) and loss.requires_grad:
                fabric.backward(loss * share)
        return value, parts

    def _loss(
        self,
        batch: RowBatch,
        labels: Tensor | None,
        local: dict[str, Loaded],
        outputs: Outputs,
        scale: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """The weighted sum of the stage's losses on the global batch, and each part."""
        fabric, total = self.job.fabric, len(batch.rows)
        if self.tower:
            rows = max(1, per_process(total, fabric.world_size))
            size = min(self.chunk.size or rows, rows)
            with fabric.autocast():
                outputs = self.tower.with_keys(local, outputs, size, -(-rows // size))
        if fabric.world_size == 1:
            return self._weighted(embeddings(outputs, local, scale, self.pairs, labels))
        tokens = any("tokens" in loss.needs for _, loss in self.job.losses.values())
        outputs, local = gather_batch(fabric, outputs, local, total, tokens)
        z = embeddings(outputs, local, scale, self.pairs, labels)
        # A loss that draws must draw the same everywhere: all processes see one batch.
        with seeded(self.job.plan.seed, "loss", self.job.stage.name, self.job.position.step):
            return self._weighted(z)

    def _weighted(self, z: Embeddings) -> tuple[Tensor, Metrics]:
        # Connected to everything: with several devices each parameter takes part in every step.
        total = sum((v[:0].sum() for v in z.vectors.values()), torch.zeros((), device=self.job.fabric.device))
        total = total + 0.0 * z.scale
        parts: Metrics = {}
        for name, module in self.losses.items():
            value = module(z)
            total = total + self.job.losses[name][0] * value
            if len(self.losses) > 1:
                parts[f"loss/{name}"] = float(value.detach())
        return total, parts

    def _skipped(self, group: list[RowBatch], loss: float) -> Metrics:
        job = self.job
        job.position.nonfinite += 1
        if job.fabric.is_global_zero:
            record = {
                "stage": job.stage.name,
                "step": job.position.step + 1,
                "rows": [int(row) for batch in group for row in batch.rows],
            }
            with (job.folder / "nonfinite.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
        if job.position.nonfinite > job.plan.max_nonfinite:
            raise RunFailed(
                f"stage {job.stage.name}: the loss was not finite in {job.position.nonfinite} steps, more "
                f"than max_nonfinite = {job.plan.max_nonfinite}; the rows of those batches are in "
                f"{job.folder / 'nonfinite.jsonl'}. Lower lr, or look at those samples"
            )
        return {"loss": loss, "nonfinite": float(job.position.nonfinite), "grad_norm": 0.0}

    def _select(self) -> None:
        """Measure the task of ``select``; keep the best weights, end the stage when patience is out."""
        job, select = self.job, self.job.stage.select
        if select is None or job.measure is None or job.position.epoch % select.every:
            return
        if self.sharded:
            copy_back(self.model, job.space, everything=False)
        value, higher = job.fabric.broadcast(job.measure())  # or processes might part ways here
        position = job.position
        if position.best is None or (value > position.best if higher else value < position.best):
            position.best, position.waited = value, 0
            self.best_weights = weights(job.space)
        else:
            position.waited += 1
            position.done = select.patience is not None and position.waited >= select.patience
        job.on_step(position.step, {f"select/{select.task}": value})
