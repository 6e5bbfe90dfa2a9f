"""fingerprint: what a molecule is made of, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import nn

from . import counts


class Fingerprint(Encoder):
    """``log(1 + count)`` of substructures, keys and groups, as one token.

    Without ``hidden`` it has no weights: features for a closed form or an alignment layer, the best start
    with up to some ten thousand pairs. With ``hidden``, a perceptron to be trained. Prefer ``gin`` with
    much data, or where every atom should be a token.

    Inputs:
        kinds: which fingerprints (``counts.counts`` describes them), side by side.
        size: numbers of each hashed one.
        hidden: widths of the perceptron's layers, the last one ``W``.
        dropout: of the perceptron's input and layers.

    Raises:
        ValueError: for an unknown kind or a width below 1.
    """

    modality: ClassVar[str] = "molecule"

    def __init__(
        self,
        kinds: Sequence[str] = ("morgan", "maccs", "groups", "totals"),
        size: int = 2048,
        hidden: Sequence[int] = (),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in counts.KINDS]
        if unknown or not kinds:
            raise ValueError(f"no fingerprint {(*unknown, None)[0]!r}; there are {', '.join(counts.KINDS)}")
        if size < 1 or any(w < 1 for w in hidden):
            raise ValueError(f"size {size} and hidden {list(hidden)}: use numbers of 1 and more")
        self.kinds, self.size = tuple(kinds), size
        self.pretrained = not hidden
        self.width = counts.width(kinds, size)
        layers: list[nn.Module] = [nn.Dropout(dropout)] if hidden else []
        for width in hidden:
            layers += [nn.Linear(self.width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)]
            self.width = width
        self.layers = nn.Sequential(*layers)

    def modality_options(self) -> dict[str, Any]:
        """Counts of these kinds, and no graph."""
        return {"graph": False, "fingerprints": list(self.kinds), "size": self.size}

    def forward(self, batch: Batch) -> Features:
        """``counts (N, F)`` -> one token ``(N, 1, W)``."""
        return Features.from_vectors(self.layers(batch["counts"]))  # (N, W)
