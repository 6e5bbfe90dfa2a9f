"""Projections: shared modules that turn aligned features into embeddings."""

from .linear import Linear
from .mean import Mean
from .mlp import MLP
from .universal import Universal

__all__ = ["MLP", "Linear", "Mean", "Universal"]
