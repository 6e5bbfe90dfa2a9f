"""Fixed-length counts of what a molecule is made of: fingerprints, keys, groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from rdkit import Chem
from rdkit.Chem import Fragments, rdFingerprintGenerator, rdMolDescriptors

GROUPS = tuple(sorted(name for name in dir(Fragments) if name.startswith("fr_")))
"""RDKit's functional groups."""
SIZES = {"maccs": 167, "groups": len(GROUPS), "totals": 42}
"""Kinds of a size of their own; the others are hashed to the size asked for."""
HASHED = ("morgan", "pairs", "torsions", "paths")
KINDS = (*HASHED, *SIZES)


def width(kinds: Sequence[str], size: int) -> int:
    """Numbers in a row of these kinds."""
    return sum(SIZES.get(kind, size) for kind in kinds)


def counts(molecule: Chem.Mol, kinds: Sequence[str], size: int) -> np.ndarray:
    """``(F,)`` float32: ``log(1 + count)`` of every part, kind after kind.

    "morgan": atoms' neighbourhoods up to two bonds away, with chirality (ECFP4; Rogers and Hahn, 2010);
    "pairs": atom pairs and their distance; "torsions": chains of four atoms; "paths": subgraphs of up to
    six bonds; "maccs": 166 structural keys (Durant et al., 2002); "groups": functional groups; "totals":
    molecular quantum numbers, counts of atoms, bonds, polar groups and rings (Nguyen et al., 2009).
    """
    return np.log1p(np.concatenate([_of_kind(molecule, kind, size) for kind in kinds]))  # (F,)


def _of_kind(molecule: Chem.Mol, kind: str, size: int) -> np.ndarray:
    if kind in HASHED:
        return _generator(kind, size).GetCountFingerprintAsNumPy(molecule).astype(np.float32)
    if kind == "maccs":
        return np.array(rdMolDescriptors.GetMACCSKeysFingerprint(molecule), np.float32)
    if kind == "groups":
        return np.array([_group(name)(molecule) for name in GROUPS], np.float32)
    return np.array(rdMolDescriptors.MQNs_(molecule), np.float32)


def _group(name: str) -> Callable[[Chem.Mol], int]:
    found: Callable[[Chem.Mol], int] = getattr(Fragments, name)
    return found


@lru_cache(maxsize=16)
def _generator(kind: str, size: int):  # type: ignore[no-untyped-def]
    make = rdFingerprintGenerator
    if kind == "morgan":
        return make.GetMorganGenerator(radius=2, fpSize=size, includeChirality=True)
    if kind == "pairs":
        return make.GetAtomPairGenerator(fpSize=size)
    if kind == "torsions":
        return make.GetTopologicalTorsionGenerator(fpSize=size)
    return make.GetRDKitFPGenerator(fpSize=size, maxPath=6)
