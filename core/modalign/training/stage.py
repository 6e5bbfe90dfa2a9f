"""What a stage trains and what it leaves alone, and the module that does its forward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from modalign.contracts import Embeddings, Features
from modalign.space import Space

from .absent import absent
from .content import Content, Embedded, Loaded
from .plan import Plan, StagePlan
from .speed import Speed


@dataclass(frozen=True)
class Trained:
    """The parts of a space (as ``Space.parts`` names them) that a stage trains."""

    parts: frozenset[str]

    def __contains__(self, part: str) -> bool:
        return part in self.parts

    def moves(self, modality: str) -> bool:
        """Whether anything on the way from a modality's features to its embedding is trained."""
        return bool(self.parts & {modality, f"encoder:{modality}", "projection"})


def trained_parts(plan: Plan, stage: StagePlan, new: Sequence[str], *, first: bool) -> Trained:
    """By default: the new modalities, their encoders where the plan says so, and in a space's first
    stage with losses the projection and the temperature. ``unfreeze`` adds to it."""
    parts = {*new, *stage.unfreeze}
    if stage.closed_form is not None:
        return Trained(frozenset(parts))
    parts |= {f"encoder:{m}" for m in new if plan.modalities[m].trainable}
    if first:
        parts.add("projection")
        if plan.space.temperature.learned:
            parts.add("temperature")
    return Trained(frozenset(parts))


def stage_pairs(stage: StagePlan, trained: Trained) -> tuple[tuple[str, str], ...]:
    """The pairings of a stage: its own, or every pair in which something is trained."""
    if stage.pairs is not None:
        return tuple((a, b) for a, b in stage.pairs)
    every = tuple(combinations(stage.align, 2))
    return tuple(p for p in every if any(trained.moves(m) for m in p)) or every


def count_parameters(space: Space, trained: Trained) -> dict[str, int]:
    """The parameters that a stage trains, by part; each counted once."""
    counts: dict[str, int] = {}
    seen: set[int] = set()
    for part, tensors in space.parts():
        for _, tensor in tensors:
            if part in trained and isinstance(tensor, nn.Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                counts[part] = counts.get(part, 0) + tensor.numel()
    return counts


def hash_parts(space: Space) -> dict[str, str]:
    """A digest of every part's tensors, to see after a stage what it left unchanged."""
    digests = {}
    for name, tensors in space.parts():
        digest = hashlib.sha256()
        for key, tensor in sorted(tensors, key=lambda pair: pair[0]):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        digests[name] = digest.hexdigest()
    return digests


class StageModel(nn.Module):
    """A space in one stage: batches of several modalities to embeddings, frozen parts in eval mode.

    Inputs:
        teacher: whether losses want the frozen encoders' own features.

    ``stand_ins`` are what is computed in place of a modality that a batch lacks; None computes nothing.
    """

    def __init__(self, space: Space, trained: Trained, max_scale: float, teacher: bool = False) -> None:
        super().__init__()
        self.space = space
        self.trained = trained
        self.max_scale = max_scale
        self.teacher = teacher
        self.speed = Speed()
        self.stand_ins: dict[str, Content] | None = None
        space.requires_grad_(False)
        for part, tensors in space.parts():
            if part in trained:
                for _, tensor in tensors:
                    if isinstance(tensor, nn.Parameter):
                        tensor.requires_grad_(True)

    def parameters_by_part(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters, by part; each in one part only."""
        found: dict[str, list[nn.Parameter]] = {}
        seen: set[int] = set()
        for part, tensors in self.space.parts():
            for _, tensor in tensors:
                if isinstance(tensor, nn.Parameter) and tensor.requires_grad and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found.setdefault(part, []).append(tensor)
        return found

    def train(self, mode: bool = True) -> StageModel:
        super().train(mode)
        modules = {"projection": self.space.projection}
        modules |= dict(self.space.layers.items())
        modules |= {f"encoder:{name}": encoder for name, encoder in self.space.encoders.items()}
        for part, module in modules.items():
            module.train(mode and part in self.trained)
        return self

    def forward(self, inputs: Mapping[str, Loaded]) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """Per modality ``vectors`` (N, D), ``tokens`` (N, T, D), ``masks`` (N, T) and extras; the scale.

        Rows that are not present are zero.
        """
        with self.speed.applied():
            return {name: self.one(name, loaded) for name, loaded in inputs.items()}, self.scale()

    def one(self, name: str, loaded: Loaded) -> dict[str, Tensor]:
        """What ``forward`` gives for one modality."""
        n, device = len(loaded.present), self.space.logit_scale.device
        if loaded.content is None:
            return absent(self, name, n)
        if isinstance(loaded.content, Embedded):
            vectors = torch.zeros(n, self.space.dim, device=device)
            vectors[loaded.present] = loaded.content.vectors.to(vectors)
            return {"vectors": vectors, "tokens": vectors[:, None], "masks": loaded.present[:, None]}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained.moves(name)):
            features = loaded.content
            if not isinstance(features, Features):
                learns = f"encoder:{name}" in self.trained
                with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
                    features = self.space.encoder(name)(features)
            out = self.space.project(name, features)
        rows = loaded.present.nonzero()[:, 0]
        full = {"vectors": out.vectors, "tokens": out.tokens, "masks": out.mask, **out.extra}
        if self.teaches(name):
            real = features.mask.unsqueeze(-1)  # (n, T, 1)
            full["teacher"] = ((features.tokens * real).sum(1) / real.sum(1)).detach()  # (n, W)
        if len(rows) == n:
            return full
        return {
            key: value.new_zeros(n, *value.shape[1:]).index_copy(0, rows, value)
            for key, value in full.items()
        }

    def teaches(self, name: str) -> bool:
        """Whether losses want its encoder's own features, and it stays as it is."""
        return self.teacher and f"encoder:{name}" not in self.trained

    def scale(self) -> Tensor:
        """1 / temperature, no larger than the plan allows."""
        return self.space.logit_scale.exp().clamp(max=self.max_scale)


def embeddings(
    outputs: Mapping[str, Mapping[str, Tensor]],
    inputs: Mapping[str, Loaded],
    scale: Tensor,
    pairs: tuple[tuple[str, str], ...],
    labels: Tensor | None,
) -> Embeddings:
    """What the losses of a stage are given, in float32."""
    known = {"vectors", "tokens", "masks", "teacher"}
    teacher = {m: out["teacher"].float() for m, out in outputs.items() if "teacher" in out}
    return Embeddings(
        vectors={m: out["vectors"].float() for m, out in outputs.items()},
        tokens={m: out["tokens"].float() for m, out in outputs.items() if "tokens" in out},
        masks={m: out["masks"] for m, out in outputs.items() if "masks" in out},
        extra={
            k: {m: out[k] for m, out in outputs.items() if k in out}
            for o in outputs.values()
            for k in o
            if k not in known
        },
        present={m: loaded.present for m, loaded in inputs.items()},
        ids={m: loaded.ids for m, loaded in inputs.items()},
        teacher=teacher or None,
        scale=scale.float(),
        pairs=pairs,
        labels=labels,
    )
