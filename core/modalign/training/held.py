"""What each process holds of a stage's model while it trains, whole or in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .fabric import FSDP
from .fsdp import units
from .plan import FabricPlan

if TYPE_CHECKING:
    from .loop import Trainer

COPY, BUCKETS = "the copy in pieces", "gradients under way"
GATHERED = 2
"""Layers whose weights are whole at the worst moment: one that computes, and the next, gathered ahead.
The gradient of another is whole then, too."""


def processes(plan: FabricPlan) -> int:
    """How many take part in a run."""
    if isinstance(plan.devices, list):
        return len(plan.devices) * plan.num_nodes
    text = str(plan.devices)
    every = max(1, torch.cuda.device_count()) if plan.accelerator != "cpu" else 1
    return (int(text) if text.isdigit() else every) * plan.num_nodes


def pieces_of(plan: FabricPlan) -> int | None:
    """Into how many pieces models are cut; None if they are not."""
    return processes(plan) if plan.strategy == FSDP else None


def held(trainer: Trainer, world: int, pieces: int | None) -> dict[str, int]:
    """Bytes by what they are for, beside the space itself and what a step makes.

    Inputs:
        trainer: of one process, whole.
        world: processes.
        pieces: as of ``pieces_of``. An estimate then: how much is whole at once is not measured.
    """
    own = sum(p.numel() for p in trainer.losses.parameters() if p.requires_grad)  # never cut
    moved = sum(p.numel() for p in trainer.trainable) - own
    numel = own + -(-moved // (pieces or 1))
    memory = {"gradients": 4 * numel, "AdamW's moments": 8 * numel}
    if trainer.tower:
        memory["the momentum tower"] = 4 * numel
    if pieces:
        memory[COPY] = _copy(trainer, pieces)
    elif world > 1:
        memory[BUCKETS] = 4 * moved  # DDP sends copies
    return memory


def _copy(trainer: Trainer, pieces: int) -> int:
    """Bytes of a process's share of all weights, and of what it gathers to compute."""
    space = trainer.model.space
    running = {m for m, reader in trainer.job.readers.items() if getattr(reader, "cache", True) is None}
    cached = [encoder for m, encoder in space.encoders.items() if m not in running]
    resting = {p for encoder in cached for p in encoder.parameters()}  # never gathered
    seen: set[nn.Parameter] = set()
    weights, gradients = [0], [0]
    for module in [*units(trainer.model), trainer.model]:
        new = set(module.parameters()) - seen
        seen |= new
        weights.append(sum(p.nbytes for p in new - resting))
        gradients.append(sum(p.nbytes for p in new if p.requires_grad))
    whole = GATHERED * max(weights) + max(gradients) if pieces > 1 else 0
    return -(-sum(p.nbytes for p in seen) // pieces) + whole
