"""Tasks: measurements of a space."""

from .blind_pairs import BlindPairs
from .clustering import Clustering
from .few_shot import FewShot
from .gap import Gap
from .group import Group
from .knn_probe import KnnProbe
from .linear_probe import LinearProbe
from .matrix import Matrix
from .missing import Missing
from .rank_variance import RankVariance
from .retrieval import Retrieval, retrieval_metrics
from .shift import Shift
from .zero_shot import ZeroShot

__all__ = [
    "BlindPairs",
    "Clustering",
    "FewShot",
    "Gap",
    "Group",
    "KnnProbe",
    "LinearProbe",
    "Matrix",
    "Missing",
    "RankVariance",
    "Retrieval",
    "Shift",
    "ZeroShot",
    "retrieval_metrics",
]
