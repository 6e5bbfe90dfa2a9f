"""What the misbehaving plugin offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from modalign import Embeddings, Encoder, Features, Modality, Task
from modalign.contracts import Batch, Report
from modalign.losses import InfoNCE
from torch import Tensor, nn

from . import act


class Note(Modality):
    """A short text as counts of 26 letters."""

    name: ClassVar[str] = "note"
    literal: ClassVar[bool] = True

    def read(self, value: Any) -> Tensor:
        act("read")
        return torch.tensor([str(value).lower().count(chr(97 + i)) for i in range(26)], dtype=torch.float32)

    def collate(self, items: Sequence[Tensor]) -> Batch:
        act("collate")
        return {"counts": torch.stack(list(items))}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        return [torch.full((26,), float(i)) for i in range(n)]


class NoteNet(Encoder):
    """One linear map."""

    modality: ClassVar[str] = "note"

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.linear = nn.Linear(26, 8)

    def forward(self, batch: Batch) -> Features:
        odd = act("forward")
        tokens = self.linear(batch["counts"]).unsqueeze(1)  # (N, 1, 8)
        if odd:
            tokens = tokens * float("nan")
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


class Moody(InfoNCE):
    def forward(self, z: Embeddings) -> Tensor:
        value = super().forward(z)
        return value * float("nan") if act("loss") else value


class Glance(Task):
    primary: ClassVar[str] = "notes"
    higher_is_better: ClassVar[bool] = True

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("note",)

    def run(self, space: Any, data: Any) -> Report:
        act("task")
        return Report(metrics={"notes": float(len(data.embed(space, "note")))})
