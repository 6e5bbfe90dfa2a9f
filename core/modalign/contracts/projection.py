"""What turns aligned features into embeddings; shared by every modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn


class Projection(nn.Module, ABC):
    """The shared module of a space: the same weights whatever the modality.

    The constructor takes ``dim`` (the space's ``D``) first and sets ``width``, which the alignment
    layers must produce, and ``dim``.
    """

    provides: ClassVar[frozenset[str]] = frozenset()
    """What it can give losses beyond vectors and tokens, such as ``{"log_sigma"}``."""

    width: int
    dim: int

    def add_modality(self, modality: str, *, founder: bool) -> None:
        """Make what it keeps per modality (a modality token). Default: nothing.

        Inputs:
            founder: True if the modality enters in the stage that trains the projection itself.
        """

    def modality_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """The parameters that are this modality's alone, trained in its stage; all others are shared."""
        return iter(())

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """``(N, T, width)`` and ``(N, T)`` -> pooled ``(N, dim)``, per token ``(N, T, dim)``.

        Not normalised: the space does that. Masked tokens change nothing in the other rows' or
        tokens' output.
        """

    def extra(self, pooled: Tensor, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """What ``provides`` names, each ``(N, ...)``, from the output of ``forward``."""
        return {}
