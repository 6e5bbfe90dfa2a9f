"""Closed-form alignment of frozen features: linear maps from covariances, without a gradient."""

from .moments import Moments
from .solve import METHODS, Map, align_pairs, identity, onto

__all__ = ["METHODS", "Map", "Moments", "align_pairs", "identity", "onto"]
