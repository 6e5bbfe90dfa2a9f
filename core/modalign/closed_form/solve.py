"""Closed-form alignment of modalities that are paired with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .anchored import anchored
from .canonical import canonical_maps, whole
from .maps import Map, Pair
from .moments import Moments

METHODS = ("ridge", "procrustes", "cca", "csa")
PARTS = 4
"""Into how many parts "csa" wants the rows dealt."""


def align_pairs(
    method: str, moments: Mapping[Pair, Sequence[Moments]], dim: int, regularisation: float | None = None
) -> tuple[dict[str, Map], float]:
    """One map into a common space of ``dim`` dimensions for every modality in the pairs.

    "cca": the directions that correlate most (Hotelling, 1936), for more than two modalities those
    that correlate most with their sum (MAXVAR; Kettenring, 1971). "csa": each of them weighted by the
    root of its correlation, so that cosines drop what is not shared (Li et al., "CSA", arXiv
    2410.07610). "ridge", "procrustes": the first modality stays as it is, centred, or if it is wider
    than ``dim`` in its principal directions; the others are mapped onto it.

    Inputs:
        moments: by pair, ``x`` of the first and ``y`` of the second, in disjoint parts of the rows;
            "csa" measures its correlations in one part with directions of the others, and so wants
            ``PARTS`` of them. Rows that lack one of the pair are in no part.
        regularisation: what is added to the diagonal of a covariance, as a share of the mean
            variance; by default, for "cca" and "csa", the oracle approximating shrinkage of each
            modality (Chen et al., 2010), for "ridge" what cross-validation says.

    Returns the maps, and the share left unexplained: ``1 -`` the mean correlation, or as ``onto``.

    Raises:
        ValueError: for another method, or as ``onto``.
    """
    if method in ("ridge", "procrustes"):
        return anchored(method, whole(moments), dim, regularisation)
    if method not in METHODS:
        raise ValueError(f"method {method!r}: use one of {', '.join(METHODS)}")
    return canonical_maps(moments, dim, regularisation, weighted=method == "csa")
