"""SMILES and MDL mol blocks as RDKit molecules, within limits."""

from __future__ import annotations

import re
from typing import Any

from modalign import BadSample
from rdkit import Chem, rdBase

MAX_CHARACTERS = 4096
"""Of a SMILES; longer ones are refused before they are parsed."""
MAX_BYTES = 1 << 18
"""Of a mol block or SDF record."""
MAX_RINGS = 200
"""Independent rings; finding them takes time that grows fast with their number."""

_BLOCK = re.compile(r"V[23]000|^M  (END|V30)", re.MULTILINE)
_PROBLEMS = {
    "AtomValenceException": "an atom has more bonds than its element allows",
    "KekulizeException": "an aromatic ring has no alternating bonds",
    "AtomKekulizeException": "an atom outside a ring is marked aromatic",
}


def is_block(text: str) -> bool:
    """Whether it is a mol block rather than a SMILES."""
    return "\n" in text and _BLOCK.search(text) is not None


def parse(text: str, max_atoms: int) -> Chem.Mol:
    """A sanitised molecule without explicit hydrogens, stereochemistry assigned.

    Inputs:
        text: a SMILES (what follows the first blank is a name, and ignored) or one mol block.
        max_atoms: heavy and explicit hydrogen atoms; larger ones are refused before sanitisation.

    Raises:
        BadSample: if it is neither, too large, or chemically impossible.
    """
    with rdBase.BlockLogs():
        raw = _block(text, sanitise=False) if is_block(text) else _smiles(text, sanitise=False)
        if raw is None:
            raise BadSample("not a mol block" if is_block(text) else "not a SMILES")
        atoms, bonds = raw.GetNumAtoms(), raw.GetNumBonds()
        if not atoms:
            raise BadSample("a molecule without atoms")
        if atoms > max_atoms:
            raise BadSample(f"{atoms} atoms; at most {max_atoms} are read")
        if bonds - atoms + 1 > MAX_RINGS:
            raise BadSample(f"more than {MAX_RINGS} rings")
        molecule = _block(text, sanitise=True) if is_block(text) else _smiles(text, sanitise=True)
        if molecule is None:
            raise BadSample(_problem(raw))
    return molecule


def _smiles(text: str, sanitise: bool) -> Chem.Mol | None:
    words = text.split()
    if not words:
        raise BadSample("empty SMILES")
    smiles = words[0]
    if len(smiles) > MAX_CHARACTERS:
        raise BadSample(f"a SMILES of {len(smiles)} characters; at most {MAX_CHARACTERS} are read")
    if not smiles.isascii() or not smiles.isprintable():
        raise BadSample("not a SMILES: it has characters that no SMILES has")
    if ">" in smiles:
        raise BadSample("a reaction, not a molecule")
    options: Any = Chem.SmilesParserParams()
    options.sanitize = sanitise
    options.removeHs = sanitise
    return _guarded(Chem.MolFromSmiles, smiles, options)


def _block(text: str, sanitise: bool) -> Chem.Mol | None:
    if len(text) > MAX_BYTES:
        raise BadSample(f"a mol block of {len(text)} characters; at most {MAX_BYTES} are read")
    first, _, rest = text.replace("\r\n", "\n").partition("$$$$")
    if rest.strip():
        raise BadSample("several molecules in one file; give each its own row")
    return _guarded(Chem.MolFromMolBlock, first, sanitize=sanitise, removeHs=sanitise)


def _guarded(parser, *args, **options) -> Chem.Mol | None:  # type: ignore[no-untyped-def]
    """RDKit gives None for what it cannot read, and for some input raises."""
    try:
        return parser(*args, **options)
    except (RuntimeError, ValueError, OverflowError):
        return None


def _problem(raw: Chem.Mol) -> str:
    """What sanitisation found, in words."""
    try:
        found = [p.GetType() for p in Chem.DetectChemistryProblems(raw)]
    except (RuntimeError, ValueError):
        found = []
    return next((_PROBLEMS[kind] for kind in found if kind in _PROBLEMS), "an impossible molecule")
