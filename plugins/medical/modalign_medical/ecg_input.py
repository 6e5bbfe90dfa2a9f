"""What both ECG encoders see: each lead standardised within itself, unknown samples zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from modalign import UserError
from modalign.contracts import Batch
from torch import Tensor

_FLOOR = 0.05  # millivolts: what is quieter is not made loud


def standardised(batch: Batch, leads: int, standardise: bool) -> tuple[Tensor, Tensor]:
    """``(N, leads, L)``, zero where nothing was measured, and the mask ``(N, L)``.

    Raises:
        UserError: if the batch has another number of leads.
    """
    signal, mask = batch["signal"], batch["mask"]
    if signal.shape[1] != leads:
        raise UserError(
            f"an encoder of {leads} leads got a batch of {signal.shape[1]}; give both the same leads"
        )
    real = (mask.unsqueeze(1) & batch["lead_mask"].unsqueeze(2)).to(signal)  # (N, leads, L)
    signal = torch.where(real > 0, signal, 0.0)
    if standardise:
        count = real.sum(2, keepdim=True).clamp(min=1)  # (N, leads, 1)
        signal = (signal - signal.sum(2, keepdim=True) / count) * real
        largest = signal.abs().amax(2, keepdim=True).clamp(min=1)  # (N, leads, 1): squares must not overflow
        spread = ((signal / largest).square().sum(2, keepdim=True) / count).sqrt() * largest
        signal = signal / (spread + _FLOOR)
    return signal, mask


def number_of(leads: int | Sequence[str]) -> int:
    return leads if isinstance(leads, int) else len(leads)


def options(rate: float, leads: int | Sequence[str]) -> dict[str, Any]:
    """What the ``ecg`` modality is asked for."""
    return {"rate": rate, "leads": leads if isinstance(leads, int) else list(leads)}
