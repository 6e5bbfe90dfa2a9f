"""identity: features that some other model computed are features already."""

from __future__ import annotations

from typing import Any, ClassVar

from modalign import Encoder, Features
from modalign.contracts import Batch


class Identity(Encoder):
    """The vector itself, as one token.

    Inputs:
        width: ``W``, of every vector.

    Prefer it where features of a frozen model are at hand; a column per model, a name in the plan for each.
    """

    modality: ClassVar[str] = "vector"
    pretrained = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def modality_options(self) -> dict[str, Any]:
        """Vectors of this width."""
        return {"width": self.width}

    def forward(self, batch: Batch) -> Features:
        """``vectors (N, W)`` -> one token ``(N, 1, W)``."""
        return Features.from_vectors(batch["vectors"])
