"""What a network for one modality must do: batch in, features out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from .features import Features
from .modality import Batch


class Encoder(nn.Module, ABC):
    """A network from one modality's batch to features; frozen unless the plan says otherwise.

    The constructor sets ``width`` and must not download anything by default.
    """

    modality: ClassVar[str]
    """Name of the modality component whose batches it reads."""

    pretrained: bool = False
    """True if name and arguments alone determine the weights (a hub id, an installed package): a space
    then refers to them while they are frozen, instead of carrying them along."""

    extras: tuple[str, ...] = ()
    """Extras of its distribution that it was built with, such as ``minilm``; a space's requirements
    name them."""

    width: int
    """``W``, the width of its tokens."""

    def modality_options(self) -> dict[str, Any]:
        """Arguments it wants its modality to be built with, such as ``{"rate": 16000}``."""
        return {}

    @abstractmethod
    def forward(self, batch: Batch) -> Features:
        """A batch of ``N`` -> tokens ``(N, T, W)``, mask ``(N, T)``.

        Row ``i`` depends on item ``i`` alone: neither on its neighbours nor on their padding.
        """

    def fingerprint(self) -> str:
        """Changes whenever the output could change; keys the feature cache.

        The default hashes the class and every weight and buffer. Constructor arguments and the
        plugin's version are added by whoever keys the cache.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{type(self).__module__}.{type(self).__qualname__}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
