"""Losses: plain ``nn.Module`` objectives over a batch of embeddings."""

from .infonce import InfoNCE

__all__ = ["InfoNCE"]
