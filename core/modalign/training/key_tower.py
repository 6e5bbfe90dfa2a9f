"""Keys for momentum losses: embeddings by a slow copy of what a stage trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from modalign.contracts import Loss

from .content import Loaded, Outputs
from .grad_cache import join, split
from .job import RunFailed
from .stage import StageModel
from .whole import fill


class KeyTower:
    """An exponential moving average of a stage's trained parts; what is frozen is shared, not copied.

    ``θ_k ← m·θ_k + (1-m)·θ_q`` after every optimiser step (He et al., arXiv 1911.05722). It embeds
    without dropout.

    Inputs:
        model: the stage's model before its first step.
        rate: ``m``.
    """

    def __init__(self, model: StageModel, rate: float) -> None:
        frozen = {
            id(t): t for part, tensors in model.space.parts() if part not in model.trained for _, t in tensors
        }
        self.model = copy.deepcopy(model, frozen)
        self.model.requires_grad_(False).eval()
        self.rate = rate
        self.moving = dict(_trained(self.model))

    def shard(self, cut: Callable[[StageModel], StageModel]) -> None:
        """Lay it out over processes as the model it follows."""
        self.model = cut(self.model)
        self.moving = dict(_trained(self.model))

    @torch.no_grad()
    def update(self, model: StageModel) -> None:
        """Follow the trained model by one step."""
        for name, fast in _trained(model):
            slow = self.moving[name]
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - self.rate)
            else:
                slow.copy_(fast)

    @torch.no_grad()
    def with_keys(
        self, loaded: Mapping[str, Loaded], outputs: Outputs, size: int | None, count: int | None = None
    ) -> Outputs:
        """The model's outputs with ``momentum``, ``(N, D)``, for each modality.

        A modality on whose way nothing is trained has its own vectors as keys.

        Inputs:
            size: rows embedded at once; None: all.
            count: how often, where all processes must do so as often; default: as it takes.
        """
        moved = {m: x for m, x in loaded.items() if self.model.trained.moves(m)}
        keys = {m: out["vectors"].detach() for m, out in outputs.items()}
        if moved:
            rows = len(next(iter(moved.values())).present)
            parts = [self.model(chunk)[0] for chunk in split(moved, size or max(1, rows), count)]
            keys |= {m: out["vectors"] for m, out in join(parts).items()} if parts else {}
        return {m: {**out, "momentum": keys[m]} for m, out in outputs.items()}

    def state(self) -> dict[str, Tensor]:
        """The slow tensors, by part and name."""
        return dict(self.moving)

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""
        for name, slow in self.moving.items():
            fill(slow, state[name])


def build_key_tower(model: StageModel, losses: Iterable[Loss]) -> KeyTower | None:
    """The tower that the losses with a need for "momentum" share; None if there are none.

    Raises:
        RunFailed: if their attributes ``momentum``, the tower's rate, differ.
    """
    rates = {getattr(loss, "momentum", 0.999) for loss in losses if "momentum" in loss.needs}
    if len(rates) > 1:
        raise RunFailed(f"losses of one stage ask for keys of different momentum {sorted(rates)}: use one")
    return KeyTower(model, rates.pop()) if rates else None


def _trained(model: StageModel) -> Iterator[tuple[str, Tensor]]:
    for part, tensors in model.space.parts():
        if part in model.trained:
            yield from ((f"{part}/{key}", tensor) for key, tensor in tensors)
