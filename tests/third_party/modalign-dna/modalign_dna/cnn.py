"""dna-cnn: a small convolutional network on bases, for motifs."""

from __future__ import annotations

from typing import ClassVar

import torch
from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8  # bases per token


class DnaCNN(Encoder):
    """One-hot bases, a strided convolution, residual blocks; a token every 8 bases.

    An unsure base is a quarter of each. Padding is zeroed before every convolution, so that a row does
    not depend on its neighbours. Prefer it where motifs and their order matter.

    Inputs:
        width: ``W``.
        layers: residual blocks.
    """

    modality: ClassVar[str] = "dna"

    def __init__(self, width: int = 96, layers: int = 3) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("one_hot", torch.cat([torch.eye(4), torch.full((1, 4), 0.25)]), persistent=False)
        self.stem = nn.Conv1d(4, width, 2 * STRIDE + 1, STRIDE, padding=STRIDE)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))

    def forward(self, batch: Batch) -> Features:
        """``bases`` and ``mask``, both ``(N, L)`` -> tokens ``(N, T, W)``, ``T = ceil(L / 8)``."""
        x: Tensor = self.one_hot[batch["bases"].long()] * batch["mask"].unsqueeze(-1)  # (N, L, 4)
        x = self.stem(x.transpose(1, 2)).transpose(1, 2)  # (N, T, W)
        mask = batch["mask"][:, ::STRIDE]  # (N, T)
        keep = mask.unsqueeze(-1)  # (N, T, 1)
        for conv, norm in zip(self.blocks, self.norms, strict=True):
            y = conv((norm(x) * keep).transpose(1, 2)).transpose(1, 2)  # (N, T, W)
            x = x + F.gelu(y)  # (N, T, W)
        return Features(x * keep, mask)
