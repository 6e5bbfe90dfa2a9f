"""A residual network along time for ECGs, trained from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F

from .ecg_input import number_of, options, standardised


class EcgCNN(Encoder):
    """Residual 1-D convolutions, halving time at each stage; a token per place of the last one.

    The 1-D ResNet that does best on PTB-XL (Strodthoff et al., 2020, arXiv:2004.13701), small, with
    norms over the channels of one moment and padding zeroed before each convolution, so that a row
    is its own. Prefer it for beats and short strips; ``ecg-transformer`` relates distant ones.

    Inputs:
        rate: samples per second.
        leads: how many, or their names, as in the ``ecg`` modality.
        width: ``W``.
        channels: of the stages; each halves time, and so does the first convolution.
        kernel: odd width of the convolutions.
        dropout: share of features dropped in training.
        standardise: bring each lead of a recording to mean 0 and deviation 1, so that amplitude,
            which skin and electrodes change, counts less; without it millivolts are kept.

    Raises:
        UserError: if kernel, channels or leads do not fit.
    """

    modality: ClassVar[str] = "ecg"

    def __init__(
        self,
        rate: float = 250,
        leads: int | Sequence[str] = 12,
        width: int = 128,
        channels: Sequence[int] = (32, 64, 96, 128),
        kernel: int = 7,
        dropout: float = 0.1,
        standardise: bool = True,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0 or not channels or min(channels) < 1 or number_of(leads) < 1:
            raise UserError(
                f"ecg-cnn: kernel {kernel} must be odd, channels {list(channels)} and leads 1 or more"
            )
        self.rate, self.leads, self.width, self.standardise = rate, leads, width, standardise
        self.stem = nn.Conv1d(number_of(leads), channels[0], 2 * kernel + 1, stride=2, padding=kernel)
        self.present = nn.Linear(number_of(leads), channels[0])
        into = (channels[0], *channels)
        self.blocks = nn.ModuleList(_Block(into[i], c, kernel, dropout) for i, c in enumerate(channels))
        self.out = nn.Sequential(
            nn.LayerNorm(channels[-1]), nn.Linear(channels[-1], width), nn.LayerNorm(width)
        )

    def modality_options(self) -> dict[str, Any]:
        return options(self.rate, self.leads)

    def forward(self, batch: Batch) -> Features:
        """``signal (N, leads, L)``, ``mask (N, L)``, ``lead_mask (N, leads)`` -> tokens ``(N, T, W)``."""
        x, mask = standardised(batch, number_of(self.leads), self.standardise)  # (N, leads, L), (N, L)
        mask = _halved(mask)
        here = self.present(batch["lead_mask"].to(x))  # (N, C)
        x = (self.stem(x) + here.unsqueeze(2)) * mask.unsqueeze(1)  # (N, C, L / 2)
        for block in self.blocks:
            x, mask = block(x, mask)  # (N, C', T), (N, T)
        return Features(self.out(x.transpose(1, 2)) * mask.unsqueeze(2), mask)  # (N, T, W)


class _Block(nn.Module):
    """Norm, ReLU, convolution, twice, time halved by the first, added to the pooled input."""

    def __init__(self, before: int, after: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(before), nn.LayerNorm(after)
        self.conv1 = nn.Conv1d(before, after, kernel, stride=2, padding=kernel // 2)
        self.conv2 = nn.Conv1d(after, after, kernel, padding=kernel // 2)
        self.skip = nn.Conv1d(before, after, 1, stride=2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(_over_channels(self.norm1, x)) * mask.unsqueeze(1)  # (N, C, T)
        mask = _halved(mask)  # (N, T / 2)
        z = F.relu(_over_channels(self.norm2, self.conv1(y))) * mask.unsqueeze(1)  # (N, C', T / 2)
        return (self.skip(x) + self.conv2(self.dropout(z))) * mask.unsqueeze(1), mask


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.transpose(1, 2)).transpose(1, 2)


def _halved(mask: Tensor) -> Tensor:
    """``(N, L)`` -> ``(N, ceil(L / 2))``: True where either of two was."""
    return F.max_pool1d(mask.float().unsqueeze(1), 2, ceil_mode=True).squeeze(1) > 0
