"""A small convolutional network on log-mel frames, trained from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

_GROUP = 32  # rows encoded together, short with short: less padding to compute
_STRIDES = (2, 2, 1)  # along time, of the three convolutions
_FLOOR = 1e-3  # of a clip's mean power, below which nothing is heard


class LogMelCNN(Encoder):
    """Log-mel frames, three strided convolutions, then residual blocks along time; a token every 40 ms.

    Loudness and each band's mean are removed per clip, so that microphones matter less. Norms are over
    the channels of one place and padding is zeroed before every convolution: a row's output is its own.
    In training, two bands and a stretch of time are blanked (SpecAugment, arXiv 1904.08779). Prefer it
    for short sounds and a few thousand clips on a CPU; ``hf-audio`` knows far more, where it can be had.

    Inputs:
        width: ``W``.
        rate: samples per second; 8000 is enough for speech from a telephone.
        mels: frequency bands, a multiple of 8.
        layers: residual blocks.
        channels: of the three convolutions.
        dropout: share of features dropped in training.
        blank: largest share of the bands, and of the time, that is blanked in training; 0 = none.

    Raises:
        UserError: if mels is no positive multiple of 8, or there are not three channels.
    """

    modality: ClassVar[str] = "audio"

    def __init__(
        self,
        width: int = 128,
        rate: int = 16000,
        mels: int = 64,
        layers: int = 2,
        channels: Sequence[int] = (24, 48, 96),
        dropout: float = 0.1,
        blank: float = 0.2,
    ) -> None:
        super().__init__()
        if mels < 8 or mels % 8:
            raise UserError(f"logmel-cnn: mels is {mels}; use a multiple of 8 such as 64")
        if len(channels) != 3:
            raise UserError(f"logmel-cnn: channels is {list(channels)}; give three, such as [24, 48, 96]")
        self.width, self.rate, self.mels, self.blank = width, rate, mels, blank
        self.hop = rate // 100  # 10 ms; a frame spans 25 ms
        self.mel = MelSpectrogram(
            rate,
            n_fft=1 << (rate // 40 - 1).bit_length(),
            win_length=rate // 40,
            hop_length=self.hop,
            f_min=40.0,
            n_mels=mels,
            mel_scale="slaney",
            norm="slaney",
            pad_mode="constant",  # not "reflect": what follows a clip must not depend on its neighbours
        )
        into = (1, *channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(into[i], into[i + 1], k, stride=(2, _STRIDES[i]), padding=k // 2)
            for i, k in enumerate((5, 3, 3))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in channels)
        self.join = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels[2] * (mels // 8), width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def modality_options(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def forward(self, batch: Batch) -> Features:
        wave, lengths = batch["wave"] * batch["mask"], batch["mask"].sum(1)  # (N, L), (N,)
        order = lengths.argsort()  # (N,)
        parts = [self._encode(wave[rows], lengths[rows]) for rows in order.split(_GROUP)]
        longest = parts[-1][0].shape[1]
        tokens = torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[1])) for x, _ in parts])  # (N, T, W)
        mask = torch.cat([F.pad(m, (0, longest - m.shape[1])) for _, m in parts])  # (N, T)
        back = order.argsort()  # (N,)
        return Features(tokens[back], mask[back])

    def _encode(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Clips of similar lengths -> tokens ``(n, T, W)``, zero where masked, and mask ``(n, T)``."""
        x, mask = self.frames(wave[:, : int(lengths.max())], lengths)  # (n, M, T'), (n, T')
        if self.training and self.blank > 0:
            x = _blanked(x, mask, self.blank)  # (n, M, T')
        x = x.unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (n, 1, M, T')
        for conv, norm, stride in zip(self.convs, self.norms, _STRIDES, strict=True):
            mask = mask[:, ::stride]
            x = norm(conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (n, C, M / 2, T' / stride)
            x = F.relu(x) * mask[:, None, None]
        tokens = self.join(x.permute(0, 3, 1, 2).flatten(2))  # (n, T, W)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.last(tokens) * mask[..., None], mask

    def frames(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, L)``, zero after each length -> standard log-mel ``(n, M, T)``, mask ``(n, T)``."""
        power = self.mel(wave)  # (n, M, T)
        mask = torch.arange(power.shape[2], device=wave.device) < (lengths // self.hop + 1)[:, None]
        real = mask[:, None].to(power)  # (n, 1, T)
        count = real.sum(2, keepdim=True)  # (n, 1, 1)
        level = (power * real).sum((1, 2), keepdim=True) / (count * self.mels)  # (n, 1, 1)
        x = torch.log(power / level.clamp(min=1e-12) + _FLOOR)  # (n, M, T)
        x = (x - (x * real).sum(2, keepdim=True) / count) * real  # (n, M, T)
        spread = x.square().sum((1, 2), keepdim=True) / (count * self.mels)  # (n, 1, 1)
        return x / (spread + 0.01).sqrt(), mask


class _Block(nn.Module):
    """Depth-wise convolution along time, then a two-layer perceptron, added to the input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.time = nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm(x) * mask[..., None]  # (n, T, W)
        y = self.time(y.transpose(1, 2)).transpose(1, 2)  # (n, T, W)
        return x + self.mlp(y)  # (n, T, W)


def _blanked(x: Tensor, mask: Tensor, share: float) -> Tensor:
    """``x (n, M, T)`` with two bands and one stretch of real time, random for each row, at 0, the mean."""
    bands = torch.arange(x.shape[1], device=x.device)[:, None]  # (M, 1)
    steps = torch.arange(x.shape[2], device=x.device)  # (T,)
    u = torch.rand(6, len(x), 1, 1, device=x.device)
    for at, total, size, where in (
        (bands, x.shape[1], u[0], u[1]),
        (bands, x.shape[1], u[2], u[3]),
        (steps, mask.sum(1)[:, None, None], u[4], u[5]),
    ):
        size = size * share * total  # (n, 1, 1)
        start = where * (total - size)  # (n, 1, 1)
        x = x * ((at < start) | (at >= start + size))
    return x
