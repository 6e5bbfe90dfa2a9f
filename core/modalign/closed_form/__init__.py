"""Closed-form alignment of frozen features: linear maps from covariances, without a gradient."""

from .anchored import onto
from .maps import Map, identity
from .moments import Moments
from .solve import METHODS, PARTS, align_pairs

__all__ = ["METHODS", "PARTS", "Map", "Moments", "align_pairs", "identity", "onto"]
