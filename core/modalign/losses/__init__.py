"""Losses: plain ``nn.Module`` objectives over a batch of embeddings."""

from .infonce import InfoNCE
from .symile import Symile

__all__ = ["InfoNCE", "Symile"]
