"""The molecule modality: SMILES or mol blocks as atoms and bonds, or as counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from modalign import BadSample, Modality, file_bytes
from modalign.contracts import Batch
from rdkit import Chem, rdBase
from torch import Generator

from . import counts
from .atoms import ATOM_SIZES, BOND_SIZES, atom_features, bond_features
from .molecule_variants import fewer_counts, graph_variant
from .padding import padded
from .smiles import parse

MAX_DRAWN = 250
"""Atoms of the largest molecule that is drawn."""

_CORES = (
    "c1ccccc1{}", "C1CCCCC1{}", "O=C(O)C{}", "N[C@@H](C{})C(=O)O", "c1ccc2[nH]ccc2c1{}",
    "OC1OC(CO)C(O)C(O)C1{}", "Cn1cnc2c1c(=O)n(C)c(=O)n2{}", "O=P(O)(O)O{}",
)  # fmt: skip


@dataclass(frozen=True)
class Read:
    """One molecule: ``atoms (A, 9)``, ``ends (B, 2)``, ``bonds (B, 4)``, ``counts (F,)``; None: unwanted."""

    smiles: str
    atoms: np.ndarray | None = None
    ends: np.ndarray | None = None
    bonds: np.ndarray | None = None
    counts: np.ndarray | None = None


class Molecule(Modality):
    """Molecules from SMILES, MDL mol blocks (V2000, V3000) or SDF files of one molecule.

    Inputs:
        graph: batches hold atoms and bonds.
        fingerprints: batches hold counts of these kinds (see ``counts.counts``): ``morgan``, ``pairs``,
            ``torsions``, ``paths``, ``maccs``, ``groups``, ``totals``.
        size: numbers of each hashed fingerprint.
        max_atoms: larger molecules are refused.
        drop: share of a molecule that ``augment`` takes away.

    Raises:
        ValueError: if nothing is to be read, or an argument is out of range.
    """

    name: ClassVar[str] = "molecule"
    literal: ClassVar[bool] = True

    def __init__(
        self,
        graph: bool = True,
        fingerprints: Sequence[str] = (),
        size: int = 2048,
        max_atoms: int = 1024,
        drop: float = 0.2,
    ) -> None:
        unknown = [kind for kind in fingerprints if kind not in counts.KINDS]
        if unknown:
            raise ValueError(f"no fingerprint {unknown[0]!r}; there are {', '.join(counts.KINDS)}")
        if not graph and not fingerprints:
            raise ValueError("graph: false and no fingerprints leave nothing to read")
        if size < 1 or not 1 <= max_atoms <= 4096 or not 0 <= drop < 1:
            raise ValueError(f"size {size} >= 1, max_atoms {max_atoms} in 1..4096, drop {drop} in [0, 1)")
        self.graph, self.fingerprints, self.size = graph, tuple(fingerprints), size
        self.max_atoms, self.drop = max_atoms, drop

    def read(self, value: Any) -> Read:
        """A SMILES or mol block as a string, or a file of either (path or bytes).

        Raises:
            BadSample: if it is neither, impossible, or larger than ``max_atoms``.
        """
        if isinstance(value, bytes | bytearray | memoryview | Path):
            value = file_bytes(value).decode("latin-1")
        if not isinstance(value, str):
            raise BadSample(f"expected a SMILES, got {type(value).__name__}")
        molecule = parse(value, self.max_atoms)
        with rdBase.BlockLogs():
            try:
                return self._read(molecule)
            except (RuntimeError, ValueError, OverflowError):
                raise BadSample("a molecule RDKit cannot describe") from None

    def _read(self, molecule: Chem.Mol) -> Read:
        atoms = ends = bonds = found = None
        if self.graph:
            atoms = atom_features(molecule)  # (A, 9)
            ends, bonds = bond_features(molecule)  # (B, 2), (B, 4)
        if self.fingerprints:
            found = counts.counts(molecule, self.fingerprints, self.size)  # (F,)
        return Read(Chem.MolToSmiles(molecule), atoms, ends, bonds, found)

    def collate(self, items: Sequence[Read]) -> Batch:
        """``N`` molecules as padded tensors.

        With ``graph``: ``atoms (N, A, 9)`` uint8, ``mask (N, A)``; ``ends (N, B, 2)`` int64,
        ``bonds (N, B, 4)`` uint8, ``bond_mask (N, B)``. With ``fingerprints``: ``counts (N, F)``.
        """
        batch: Batch = {}
        if self.graph:
            batch["atoms"], batch["mask"] = padded([item.atoms for item in items], len(ATOM_SIZES))
            batch["bonds"], batch["bond_mask"] = padded([item.bonds for item in items], len(BOND_SIZES))
            batch["ends"] = padded([item.ends for item in items], 2)[0].long()
        if self.fingerprints:
            batch["counts"] = torch.from_numpy(
                np.stack([item.counts for item in items if item.counts is not None])
            )  # (N, F)
        return batch

    def example(self, n: int, seed: int = 0) -> list[Read]:
        """``n`` small molecules: a core and a chain of its own length."""
        draw = random.Random(seed)
        chains = ["C" * draw.randrange(6) + draw.choice(("", "O", "N", "Cl", "C=C")) for _ in range(n)]
        return [self.read(draw.choice(_CORES).format(chain)) for chain in chains]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """One of GraphCL's changes for each molecule (``graph_variant``); counts left out at random."""
        if self.graph:
            batch = graph_variant(batch, self.drop, generator)
        if self.fingerprints:
            batch = fewer_counts(batch, self.drop, generator)
        return batch

    def preview(self, item: Read) -> tuple[str, bytes]:
        """A drawing of the molecule: SVG; its SMILES if it is too large to be drawn in a moment."""
        from rdkit.Chem.Draw import rdMolDraw2D

        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(item.smiles)
            if molecule is None or molecule.GetNumAtoms() > MAX_DRAWN:
                return "text/plain", item.smiles.encode()
            drawing = rdMolDraw2D.MolDraw2DSVG(300, 240)
            rdMolDraw2D.PrepareAndDrawMolecule(drawing, molecule)
            drawing.FinishDrawing()
            return "image/svg+xml", drawing.GetDrawingText().encode()
