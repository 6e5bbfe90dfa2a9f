"""Atoms and bonds of a molecule as small integers for embedding tables."""

from __future__ import annotations

import numpy as np
from rdkit import Chem

ATOM_SIZES = (120, 11, 17, 9, 9, 2, 2, 4, 5)
"""Element (119 = masked), neighbours, charge + 8, hydrogens, hybridisation, aromatic, in a ring,
configuration (none, R, S, not given), unpaired electrons."""
BOND_SIZES = (6, 4, 2, 2)
"""Kind (single, double, triple, aromatic, dative, other), configuration (none, E, Z, other),
conjugated, in a ring."""
MASKED = 119

_KINDS = {
    Chem.BondType.SINGLE: 0,
    Chem.BondType.DOUBLE: 1,
    Chem.BondType.TRIPLE: 2,
    Chem.BondType.AROMATIC: 3,
    Chem.BondType.DATIVE: 4,
}
_STEREO = {
    Chem.BondStereo.STEREONONE: 0,
    Chem.BondStereo.STEREOE: 1,
    Chem.BondStereo.STEREOTRANS: 1,
    Chem.BondStereo.STEREOZ: 2,
    Chem.BondStereo.STEREOCIS: 2,
}


def atom_features(molecule: Chem.Mol) -> np.ndarray:
    """``(A, 9)`` uint8, each column below its entry in ``ATOM_SIZES``."""
    configured = dict(
        Chem.FindMolChiralCenters(molecule, includeUnassigned=True, useLegacyImplementation=True)
    )
    rows = [
        (
            min(atom.GetAtomicNum(), 118),
            min(atom.GetDegree(), 10),
            min(max(atom.GetFormalCharge() + 8, 0), 16),
            min(atom.GetTotalNumHs(), 8),
            min(int(atom.GetHybridization()), 8),
            atom.GetIsAromatic(),
            atom.IsInRing(),
            {"R": 1, "S": 2, "?": 3}.get(configured.get(atom.GetIdx(), ""), 0),
            min(atom.GetNumRadicalElectrons(), 4),
        )
        for atom in molecule.GetAtoms()
    ]
    return np.array(rows, dtype=np.uint8)


def bond_features(molecule: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Ends ``(B, 2)`` int16 and kinds ``(B, 4)`` uint8, each column below its entry in ``BOND_SIZES``."""
    ends, kinds = [], []
    for bond in molecule.GetBonds():
        ends.append((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        kind, stereo = _KINDS.get(bond.GetBondType(), 5), _STEREO.get(bond.GetStereo(), 3)
        kinds.append((kind, stereo, bond.GetIsConjugated(), bond.IsInRing()))
    return np.array(ends, np.int16).reshape(-1, 2), np.array(kinds, np.uint8).reshape(-1, 4)
