"""A small residual network for scans of 32 to 128 pixels, trained from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F


class ScanCNN(Encoder):
    """Residual 3x3 convolutions, halving the picture at each stage; a token per place of the last grid.

    ResNet (He et al., 2015, arXiv:1512.03385) with group norm in place of batch norm, so that a row
    is its own, and grey input: the mean of the three channels. Prefer it for small grey scans and few
    of them, where textures count; prefer a pretrained ``hf-image`` where one can be had.

    Inputs:
        size: side of the scans in pixels, a multiple of ``2 ** (len(channels) + 1)``.
        width: ``W``.
        channels: of the stages, multiples of 8.
        blocks: residual blocks per stage.
        dropout: share of channels dropped before the last projection, in training.

    Raises:
        UserError: if sizes or channels do not fit.
    """

    modality: ClassVar[str] = "scan"

    def __init__(
        self,
        size: int = 64,
        width: int = 128,
        channels: Sequence[int] = (24, 48, 96),
        blocks: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        step = 2 ** (len(channels) + 1)
        if not channels or any(c < 8 or c % 8 for c in channels) or blocks < 1:
            raise UserError(
                f"scan-cnn: channels {list(channels)}, blocks {blocks}; multiples of 8, 1 or more"
            )
        if size < step or size % step:
            raise UserError(f"scan-cnn: size is {size}; with {len(channels)} stages use a multiple of {step}")
        self.size, self.width = size, width
        self.stem = nn.Conv2d(1, channels[0], 5, stride=2, padding=2)
        into = (channels[0], *channels)
        self.stages = nn.Sequential(
            *(
                _Block(into[i] if j == 0 else c, c, stride=2 if j == 0 else 1)
                for i, c in enumerate(channels)
                for j in range(blocks)
            )
        )
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels[-1], width), nn.LayerNorm(width))

    def modality_options(self) -> dict[str, Any]:
        return {"size": self.size}

    def forward(self, batch: Batch) -> Features:
        """``pixels (N, 3, S, S)`` in [0, 1] -> tokens ``(N, T, W)``, mask ``(N, T)``, all True."""
        pixels = batch["pixels"]
        if pixels.shape[-2:] != (self.size, self.size):
            raise UserError(f"scan-cnn was built for size {self.size}, got {tuple(pixels.shape[-2:])}")
        grey = pixels.mean(1, keepdim=True) * 4 - 2  # (N, 1, S, S)
        x = self.stages(self.stem(grey.contiguous(memory_format=torch.channels_last)))  # (N, C, s, s)
        tokens = self.out(x.flatten(2).mT)  # (N, T, W)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


class _Block(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input; the first one may halve the picture."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(before // 8, before), nn.GroupNorm(after // 8, after)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        same = stride == 1 and before == after
        self.skip = nn.Identity() if same else nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))  # (N, C, s, s)
        z = self.conv2(F.relu(self.norm2(self.conv1(y))))  # (N, C', s / stride, s / stride)
        return self.skip(y if not isinstance(self.skip, nn.Identity) else x) + z
