"""A perceptron on percentiles and missing flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import nn


class LabsMLP(Encoder):
    """``2A`` inputs, a percentile and a flag for each analyte, two hidden layers, one token.

    The encoder of Symile-MIMIC (Saporta et al., 2024, arXiv:2411.01053).

    Inputs:
        analytes: how many the ``labs`` modality gives, or their names.
        width: ``W``.
        hidden: width of the hidden layers.
        dropout: share of features dropped in training.

    Raises:
        UserError: if there is no analyte.
    """

    modality: ClassVar[str] = "labs"

    def __init__(
        self, analytes: int | Sequence[str] = 50, width: int = 128, hidden: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.analytes: int | list[str] = analytes if isinstance(analytes, int) else list(analytes)
        self.width, self.count = width, analytes if isinstance(analytes, int) else len(analytes)
        if self.count < 1:
            raise UserError("labs-mlp: analytes; give their number or names, as the labs modality has them")
        self.layers = nn.Sequential(
            nn.Linear(2 * self.count, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, width), nn.LayerNorm(width),
        )  # fmt: skip

    def modality_options(self) -> dict[str, Any]:
        return {"analytes": self.analytes}

    def forward(self, batch: Batch) -> Features:
        """``percentiles (N, A)``, ``present (N, A)`` -> one token ``(N, 1, W)``."""
        values, present = batch["percentiles"], batch["present"]
        if values.shape[1] != self.count:
            raise UserError(
                f"labs-mlp of {self.count} analytes got {values.shape[1]}; say analytes: {values.shape[1]}"
            )
        flags = present.to(values)  # (N, A)
        centred = (2 * values - 1) * flags  # (N, A), zero where missing
        return Features.from_vectors(self.layers(torch.cat([centred, flags], 1)))
