"""A modality of which a process's batch holds no row: zeros that still take part in the step.

The processes of a run compute in step with each other: a parameter, or a module that FSDP gathers, must
be used by all of them or by none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .content import Loaded

if TYPE_CHECKING:
    from .stage import StageModel


def absent(model: StageModel, name: str, n: int) -> dict[str, Tensor]:
    """What the model gives for ``n`` rows that are all missing: zeros."""
    space, device = model.space, model.space.logit_scale.device
    if model.stand_ins is not None and name in model.stand_ins:
        modes = [(module, module.training) for module in model.modules()]
        try:
            space.eval()  # no draw, and no statistics of a row that is none
            one = torch.ones(1, dtype=torch.bool, device=device)
            out = model.one(name, Loaded(model.stand_ins[name], one, one.long()))
        finally:
            for module, mode in modes:
                module.training = mode
        return {k: _none_of(v, n) for k, v in out.items()}
    empty = torch.zeros(n, 1, space.dim, device=device)
    if model.stand_ins is None and model.trained.moves(name):
        # Connected to what is trained: every process takes part in the backward pass. What stays as it is
        # has no gradient where its rows are present, and must have none here.
        empty = empty + sum(p.sum() * 0.0 for p in model.parameters() if p.requires_grad)
    full = {"vectors": empty[:, 0], "tokens": empty, "masks": empty[..., 0].bool()}
    if model.teaches(name):
        full["teacher"] = torch.zeros(n, space.entry(name).width, device=device)
    return full


def _none_of(row: Tensor, n: int) -> Tensor:
    zeros = row.new_zeros(n, *row.shape[1:])
    return zeros + row.sum() * 0 if row.is_floating_point() else zeros
