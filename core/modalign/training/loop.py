"""The only training loop: one stage, from any step on, to its end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from modalign.contracts import Embeddings, Loss
from modalign.space_files import weights

from .batches import RowBatch, batches
from .content import Loaded, to_device
from .gather import gather_rows, pad_tokens
from .grad_cache import Outputs, cached_backward
from .job import Metrics, Position, RunFailed, StageJob, steps_per_epoch
from .key_tower import build_key_tower
from .memory import ChunkSize
from .optim import build_optimizer, build_schedule
from .prefetch import Prefetcher
from .rng import restore_rng, rng_state, seed_all, seeded
from .speed import stage_speed
from .stage import StageModel, embeddings, stage_pairs


class Trainer:
    """Trains one stage; ``state`` and ``restore`` are exact, to the bit."""

    def __init__(self, job: StageJob) -> None:
        self.job = job
        needs = frozenset[str]().union(*(loss.needs for _, loss in job.losses.values()))
        self.model = StageModel(
            job.space, job.trained, 1 / job.plan.space.temperature.min, teacher="teacher" in needs
        )
        self.model.speed = stage_speed(job)
        self.losses = nn.ModuleDict({name: loss for name, (_, loss) in job.losses.items()})
        self.losses.to(job.fabric.device)
        with seeded(job.plan.seed, "bind", job.stage.name):
            for _, loss in job.losses.values():
                loss.bind(job.space)
        own = [p for p in self.losses.parameters() if p.requires_grad]
        moved = [p for part in self.model.parameters_by_part().values() for p in part]
        self.trainable = moved + own
        optimizer = build_optimizer(job.stage, self.trainable)
        steps = steps_per_epoch(job.stage, job.epochs) * job.stage.epochs
        self.schedule = build_schedule(job.stage, optimizer, steps)
        self.wrapped, self.optimizer = job.fabric.setup(self.model, optimizer)
        self.tower = build_key_tower(self.model, [loss for _, loss in job.losses.values()])
        self.pairs = stage_pairs(job.stage, job.trained)
        self.best_weights: dict[str, Tensor] | None = None
        self.chunk = ChunkSize(job.stage.chunk_size, alone=job.fabric.world_size == 1)

    # State ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a resumed process needs to go on as if nothing had happened."""
        return {
            "space": weights(self.job.space),
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": rng_state(),
            "position": asdict(self.job.position),
            "best_weights": self.best_weights,
            "tower": self.tower.state() if self.tower else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        self.job.space.load_state_dict(state["space"], strict=False)
        self.losses.load_state_dict(state["losses"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.job.position = Position(**state["position"])
        self.best_weights = state["best_weights"]
        if self.tower:
            self.tower.restore(state["tower"])
        restore_rng(state["rng"])

    # Training ------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the position to the end of the stage.

        Raises:
            KeyboardInterrupt: after a checkpoint, when the user asked to stop.
            RunFailed: when too many losses were not finite.
        """
        job, stage = self.job, self.job.stage
        if not any((job.position.stage_step, job.position.epoch)):
            seed_all(job.plan.seed, "stage", stage.name)
        every = job.plan.checkpoint.every_steps
        while not job.position.done and job.position.epoch < stage.epochs:
            for metrics in self._epoch():
                job.on_step(job.position.step, metrics)
                stop = self._agreed(job.stopping())
                if stop or (every and job.position.step % every == 0):
                    job.on_checkpoint(self.state())
                if stop:
                    raise KeyboardInterrupt
            job.position = replace(job.position, epoch=job.position.epoch + 1, batch=0)
            self._select()
            job.on_checkpoint(self.state())
        if self.best_weights is not None:
            job.space.load_state_dict(self.best_weights, strict=False)

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop."""
        fabric = self.job.fabric
        if fabric.world_size == 1:
            return stop
        asked = fabric.all_reduce(torch.tensor(float(stop), device=fabric.device), reduce_op="max")
        return bool(asked)

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

    def _step(self, group: list[RowBatch]) -> Metrics:
        """One optimiser step over a few batches; skipped if a loss is not finite."""
        job, fabric = self.job, self.job.fabric
        rows = max(len(x.present) for batch in group for x in batch.loaded.values())
        totals = self.chunk.run(lambda: self._gradient(group), self.optimizer.zero_grad, rows)
        if not math.isfinite(totals["loss"]):
            self.optimizer.zero_grad()
            return self._skipped(group, totals["loss"])
        self._reduce_own_gradients()
        if job.stage.clip is not None:
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

        def loss_of(outputs: Outputs, scale: Tensor) -> tuple[Tensor, Metrics]:
            return self._loss(labels, local, outputs, scale)

        if size := self.chunk.below(max(len(x.present) for x in local.values())):
            return cached_backward(fabric, self.wrapped, local, size, loss_of, share, last)
        with fabric.no_backward_sync(self.wrapped, enabled=not last):
            loss, parts = loss_of(*self.wrapped(local))
            value = float(loss.detach())
            if math.isfinite(value) and loss.requires_grad:
                fabric.backward(loss * share)
        return value, parts

    def _loss(
        self, labels: Tensor | None, local: dict[str, Loaded], outputs: Outputs, scale: Tensor
    ) -> tuple[Tensor, Metrics]:
        """The weighted sum of the stage's losses on the global batch, and each part."""
        fabric = self.job.fabric
        if self.tower:
            with fabric.autocast():
                outputs = self.tower.with_keys(local, outputs, self.chunk.size)
        if fabric.world_size > 1:
            outputs, local = self._gather(outputs, local)
        z = embeddings(outputs, local, scale, self.pairs, labels)
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

    def _gather(self, outputs: Outputs, local: dict[str, Loaded]) -> tuple[Outputs, dict[str, Loaded]]:
        fabric = self.job.fabric
        tokens = any("tokens" in loss.needs for loss in self.losses.values() if isinstance(loss, Loss))
        kept = {
            m: {k: v for k, v in out.items() if tokens or k not in ("tokens", "masks")}
            for m, out in outputs.items()
        }
        if tokens:
            kept = pad_tokens(fabric, kept)
        gathered = {m: {k: gather_rows(fabric, v) for k, v in out.items()} for m, out in kept.items()}
        return gathered, {
            m: Loaded(None, gather_rows(fabric, x.present), gather_rows(fabric, x.ids))
            for m, x in local.items()
        }

    def _reduce_own_gradients(self) -> None:
        """Average over ranks what lies outside the wrapped module: the losses' own parameters."""
        if self.job.fabric.world_size > 1:
            for parameter in self.losses.parameters():
                if parameter.grad is not None:
                    mean = self.job.fabric.all_reduce(parameter.grad, reduce_op="mean")
                    assert isinstance(mean, Tensor)
                    parameter.grad = mean

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
        value, higher = job.measure()
        position = job.position
        if position.best is None or (value > position.best if higher else value < position.best):
            position.best, position.waited = value, 0
            self.best_weights = weights(job.space)
        else:
            position.waited += 1
            position.done = select.patience is not None and position.waited >= select.patience
        job.on_step(position.step, {f"select/{select.task}": value})
