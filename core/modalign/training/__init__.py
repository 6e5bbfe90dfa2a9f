"""Training: plans, data, the loop, checkpoints, tracking."""

from modalign.space_files import load

from .job import RunFailed
from .plan import Plan
from .run import align

__all__ = ["Plan", "RunFailed", "align", "load"]
