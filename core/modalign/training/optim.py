"""AdamW with warm-up and a cosine: the optimiser of every stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .plan import StagePlan
from .whole import fill


def build_optimizer(stage: StagePlan, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW; vectors and scalars (norms, biases, tokens, the temperature) do not decay."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=stage.lr)


def build_schedule(
    stage: StagePlan, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over ``stage.warmup`` of ``steps``, then a half cosine to zero or a constant."""
    warmup = math.ceil(stage.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if stage.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def moments(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """What the optimiser keeps of every parameter, by its name: the same however they are laid out."""
    return {name: dict(optimizer.state[p]) for name, p in named.items() if p in optimizer.state}


@torch.no_grad()
def restore_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], saved: Mapping[str, Any]
) -> None:
    """The inverse of ``moments``."""
    for name, kept in saved.items():
        parameter = named[name]
        optimizer.state[parameter] = {}
        for key, value in kept.items():
            own = torch.zeros((), dtype=value.dtype) if key == "step" else torch.zeros_like(parameter)
            fill(own, value)
            optimizer.state[parameter][key] = own
