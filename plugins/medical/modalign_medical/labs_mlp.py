"""A perceptron on percentiles and missing flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import nn

from .labs_reference import load


class LabsMLP(Encoder):
    """``2A`` inputs, a percentile and a flag for each analyte, two hidden layers, one token.

    The encoder of Symile-MIMIC (Saporta et al., 2024, arXiv:2411.01053). It takes the reference, for
    it depends on it, and hands it to the ``labs`` modality.

    Inputs:
        reference, analytes: as in the ``labs`` modality.
        width: ``W``.
        hidden: width of the hidden layers.
        dropout: share of features dropped in training.

    Raises:
        UserError: if there is no such reference, or it lacks an analyte.
    """

    modality: ClassVar[str] = "labs"

    def __init__(
        self,
        reference: str | Mapping[str, Sequence[float]],
        analytes: Sequence[str] | None = None,
        width: int = 128,
        hidden: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        known = load(reference)
        names = list(analytes) if analytes is not None else list(known)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise UserError(
                f"labs-mlp: the reference has no {unknown[:1]}; it has {', '.join(list(known)[:20])}"
            )
        self.width, self.count = width, len(names)
        self._options: dict[str, Any] = {"reference": reference, "analytes": names}
        self.layers = nn.Sequential(
            nn.Linear(2 * len(names), hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, width), nn.LayerNorm(width),
        )  # fmt: skip

    def modality_options(self) -> dict[str, Any]:
        return dict(self._options)

    def forward(self, batch: Batch) -> Features:
        """``percentiles (N, A)``, ``present (N, A)`` -> one token ``(N, 1, W)``."""
        values, present = batch["percentiles"], batch["present"]
        if values.shape[1] != self.count:
            raise UserError(
                f"labs-mlp of {self.count} analytes got {values.shape[1]}; give both the same reference"
            )
        flags = present.to(values)  # (N, A)
        centred = (2 * values - 1) * flags  # (N, A), zero where missing
        return Features.from_vectors(self.layers(torch.cat([centred, flags], 1)))
