"""What an objective must do: embeddings in, one number out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from .features import Embeddings


class Loss(nn.Module, ABC):
    """An objective over a batch of embeddings; lower is better aligned.

    It sees the global batch, whatever the number of devices, and is a plain ``nn.Module``: usable
    without our trainer. Losses are summed in the plan (``losses: {infonce: 1.0, uniformity: 0.1}``).
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What must be in the embeddings: "tokens", "labels", "relevance", "teacher", "log_sigma", ….
    An open set, matched before a run starts."""

    @abstractmethod
    def forward(self, z: Embeddings) -> Tensor:
        """Embeddings of ``N`` rows -> scalar ``()`` in float32, finite, with a gradient.

        Rows with ``z.present[m]`` False are not read for modality ``m``; a batch that holds
        nothing to compare gives zero, still connected to its inputs.
        """

    def bind(self, space: Any) -> None:
        """Called once before a stage, for losses that keep a queue or a momentum tower."""

    def after_step(self) -> None:
        """Called after every optimiser step. State belongs in buffers: they are checkpointed."""
