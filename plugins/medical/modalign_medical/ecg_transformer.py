"""A transformer over short stretches of an ECG, trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F

from .ecg_input import number_of, options, standardised


class EcgTransformer(Encoder):
    """Patches of all leads -> pre-norm transformer with sinusoidal positions; a token per patch.

    The vision transformer's recipe (Dosovitskiy et al., 2020, arXiv:2010.11929) along time; padding
    and gaps are no keys. Prefer it for strips of several beats, whose rhythm counts; ``ecg-cnn`` for
    single beats and the least data.

    Inputs:
        rate: samples per second.
        leads: how many, or their names, as in the ``ecg`` modality.
        patch: seconds of a patch.
        width: ``W``, a multiple of ``heads`` and of 2.
        layers, heads: of the transformer.
        mlp: hidden width of its perceptrons, as a multiple of ``width``.
        dropout: after attention and perceptron.
        standardise: as in ``ecg-cnn``.

    Raises:
        UserError: if the sizes do not fit together.
    """

    modality: ClassVar[str] = "ecg"

    def __init__(
        self,
        rate: float = 250,
        leads: int | Sequence[str] = 12,
        patch: float = 0.08,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        mlp: float = 2.0,
        dropout: float = 0.1,
        standardise: bool = True,
    ) -> None:
        super().__init__()
        size = round(patch * rate)
        if size < 1 or width < 2 or width % heads or width % 2 or number_of(leads) < 1:
            raise UserError(
                f"ecg-transformer: patch {patch} s must hold a sample, width {width} fit heads {heads}"
            )
        self.rate, self.leads, self.width, self.standardise, self.size = rate, leads, width, standardise, size
        self.patches = nn.Conv1d(number_of(leads), width, size, stride=size)
        self.present = nn.Linear(number_of(leads), width)
        self.blocks = nn.ModuleList(_Block(width, heads, int(mlp * width), dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def modality_options(self) -> dict[str, Any]:
        return options(self.rate, self.leads)

    def forward(self, batch: Batch) -> Features:
        """``signal (N, leads, L)``, ``mask (N, L)``, ``lead_mask (N, leads)`` -> tokens ``(N, T, W)``."""
        x, mask = standardised(batch, number_of(self.leads), self.standardise)  # (N, leads, L), (N, L)
        over = -x.shape[2] % self.size
        mask = F.pad(mask, (0, over)).unflatten(1, (-1, self.size)).any(2)  # (N, T)
        x = self.patches(F.pad(x, (0, over))).transpose(1, 2)  # (N, T, W)
        x = x + self.present(batch["lead_mask"].to(x)).unsqueeze(1) + _positions(x)
        for block in self.blocks:
            x = block(x, mask)  # (N, T, W)
        return Features(self.norm(x) * mask.unsqueeze(2), mask)


class _Block(nn.Module):
    """Pre-norm self-attention among real tokens, and perceptron."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, w = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, w // self.heads)  # (N, T, 3, H, W / H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (N, H, T, W / H)
        y = F.scaled_dot_product_attention(q, k, v, mask[:, None, None])  # (N, H, T, W / H)
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(n, t, w)))  # (N, T, W)
        return x + self.dropout(self.mlp(self.norm2(x)))  # (N, T, W)


def _positions(x: Tensor) -> Tensor:
    """``(T, W)`` sines and cosines of the place (Vaswani et al., 2017, arXiv:1706.03762, §3.5)."""
    at = torch.arange(x.shape[1], device=x.device).to(x).unsqueeze(1)  # (T, 1)
    turn = torch.exp(torch.arange(0, x.shape[2], 2, device=x.device).to(x) * (-math.log(1e4) / x.shape[2]))
    return torch.cat([(at * turn).sin(), (at * turn).cos()], 1)
