"""A small vision transformer with a convolutional stem, trained from scratch on a CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from modalign import UserError
from modalign.contracts import Batch, Encoder, Features
from torch import Tensor, nn
from torch.nn import functional as F


class SmallViT(Encoder):
    """Convolutional stem -> patches -> pre-norm transformer blocks; one token per patch.

    ViT (Dosovitskiy et al., 2020, arXiv:2010.11929) with the stem of Xiao et al. (2021,
    arXiv:2106.14881): 3x3 convolutions of stride 2 with group norm in place of one large patch
    convolution, which learns far more from little data.

    Prefer it for small pictures and a CPU; prefer a pretrained ``hf-image`` for photographs.

    Inputs:
        size: side of the pictures, in pixels; 8 to 64 is what it is made for.
        patch: side of a patch, a power of two that divides ``size``; time grows with
            ``(size / patch) ** 2``.
        width: ``W``, a multiple of ``heads`` and of 8.
        layers, heads: of the transformer.
        mlp: hidden width of its perceptrons, as a multiple of ``width``.
        dropout: after attention and perceptron.

    Raises:
        ValueError: if the sizes do not fit together.
    """

    modality: ClassVar[str] = "image"

    def __init__(
        self,
        size: int = 32,
        patch: int = 8,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        mlp: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if patch < 2 or patch & (patch - 1) or size < patch or size % patch:
            raise ValueError(f"patch {patch} must be a power of two above 1 that divides size {size}")
        if width < 8 or width % 8 or width % heads:
            raise ValueError(f"width {width} must be a multiple of 8 and of heads {heads}")
        self.size = size
        self.width = width
        self.stem = _stem(patch, width)
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads, int(mlp * width), dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def modality_options(self) -> dict[str, Any]:
        """The size of its input."""
        return {"size": self.size}

    def forward(self, batch: Batch) -> Features:
        """``pixels (N, 3, S, S)`` in [0, 1] -> tokens ``(N, T, W)``, mask ``(N, T)``, all True."""
        pixels = batch["pixels"]  # (N, 3, S, S)
        if pixels.shape[-2:] != (self.size, self.size):
            raise UserError(
                f"small-vit was built for size {self.size}, got pictures of {tuple(pixels.shape[-2:])}"
            )
        x = self.stem(pixels * 4 - 2).flatten(2).mT  # (N, T, W)
        x = self.norm(self.blocks(x + self.positions))  # (N, T, W)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


def _stem(patch: int, width: int) -> nn.Sequential:
    """As many halvings as the patch has, channels doubling up to ``width``, then a 3x3 convolution.

    The last one lets every patch see its neighbours: on little data attention learns that late.
    """
    halvings = patch.bit_length() - 1
    layers: list[nn.Module] = []
    before = 3
    for i in reversed(range(halvings)):
        after = max(width // 2**i // 8 * 8, 8)
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1),
            nn.GroupNorm(after // 8, after),
            nn.GELU(),
        ]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, width, 3, padding=1))


class _Block(nn.Module):
    """Pre-norm self-attention and perceptron."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, t, w = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, w // self.heads)  # (N, T, 3, H, W/H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (N, H, T, W/H)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, w)  # (N, T, W)
        x = x + self.dropout(self.out(y))  # (N, T, W)
        return x + self.dropout(self.mlp(self.norm2(x)))  # (N, T, W)
