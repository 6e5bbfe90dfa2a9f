"""Tasks: measurements of a space."""

from .retrieval import Retrieval, retrieval_metrics
from .zero_shot import ZeroShot

__all__ = ["Retrieval", "ZeroShot", "retrieval_metrics"]
