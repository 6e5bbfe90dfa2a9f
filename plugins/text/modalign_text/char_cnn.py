"""A small byte-level convolutional network, trained from scratch on a CPU."""

from __future__ import annotations

from typing import ClassVar

from modalign.contracts import Batch, Encoder, Features
from torch import Tensor, nn
from torch.nn import functional as F


class CharCNN(Encoder):
    """Bytes -> embedding -> residual convolutions; no tokenizer and no vocabulary.

    After Zhang et al., 2015 (arXiv:1509.01626), on UTF-8 bytes, with residual blocks (convolution,
    layer norm, GELU) whose dilation doubles from layer to layer. Padding is zeroed before every
    convolution, so a row is the same alone and in any batch.

    Prefer it for strings no pretrained model knows (names, codes, formulas) or without weights at
    hand; prefer a pretrained model for sentences.

    Inputs:
        width: ``W``.
        layers: residual blocks.
        kernel: bytes (later tokens) each convolution sees; odd.
        stride: bytes per token; each token sees ``2 * stride + 1`` bytes before the blocks.
        dropout: in each block.

    Raises:
        ValueError: if ``kernel`` is even or a size is below 1.
    """

    modality: ClassVar[str] = "text"

    def __init__(
        self, width: int = 128, layers: int = 4, kernel: int = 5, stride: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or min(width, layers, kernel, stride) < 1:
            raise ValueError(
                f"width {width}, layers {layers}, kernel {kernel}, stride {stride}: "
                "use an odd kernel and nothing below 1"
            )
        self.width = width
        self.stride = stride
        narrow = max(width // 2, 1)
        self.bytes = nn.Embedding(256, narrow)
        self.stem = nn.Conv1d(narrow, width, 2 * stride + 1, stride, padding=stride)
        self.blocks = nn.ModuleList(_Block(width, kernel, 2**i, dropout) for i in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> Features:
        """``bytes`` and ``mask``, both ``(N, L)`` -> tokens ``(N, T, W)``, ``T = ceil(L / stride)``."""
        real = batch["mask"]  # (N, L)
        x = self.bytes(batch["bytes"].long()) * real.unsqueeze(-1)  # (N, L, W/2)
        x = self.stem(x.mT).mT  # (N, T, W)
        mask = real[:, :: self.stride]  # (N, T)
        keep = mask.unsqueeze(-1)  # (N, T, 1)
        for block in self.blocks:
            x = block(x * keep)  # (N, T, W)
        return Features(self.norm(x) * keep, mask)


class _Block(nn.Module):
    """Convolution, layer norm over channels (never over time, which holds padding), GELU, linear."""

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x.mT).mT)  # (N, T, W)
        return x + self.dropout(self.linear(F.gelu(y)))  # (N, T, W)
