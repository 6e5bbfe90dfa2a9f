"""The DNA modality: FASTA files in, padded codes of bases out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from modalign import BadSample, Modality, file_bytes
from modalign.contracts import Batch
from torch import Generator, Tensor

BASES = "ACGT"
UNSURE = "RYSWKMBDHVN"  # IUPAC letters for one of several bases
_CODES = {letter: code for code, letter in enumerate(BASES)} | dict.fromkeys(UNSURE, 4) | {"U": 3}


class Dna(Modality):
    """One sequence per FASTA file: A, C, G, T become 0 to 3, every other IUPAC letter 4.

    Inputs:
        max_bases: longer sequences are cut there.

    Raises:
        ValueError: if ``max_bases`` is below 1.
    """

    name: ClassVar[str] = "dna"

    def __init__(self, max_bases: int = 2000) -> None:
        if max_bases < 1:
            raise ValueError(f"max_bases is {max_bases}; use 1 or more")
        self.max_bases = max_bases

    def read(self, value: Any) -> Tensor:
        """A FASTA file, or a bare sequence in one -> ``(L,)`` uint8.

        Raises:
            BadSample: if it holds no sequence, several, or a letter that is no base.
        """
        lines = [line.strip() for line in file_bytes(value).decode("utf-8", "replace").splitlines()]
        heads = sum(line.startswith(">") for line in lines)
        if heads > 1:
            raise BadSample(f"holds {heads} sequences, expected one")
        letters = "".join(line for line in lines if not line.startswith((">", ";")))
        sequence = "".join(letters.split()).replace("-", "").rstrip("*").upper()
        if not sequence:
            raise BadSample("holds no sequence")
        wrong = next((i for i, letter in enumerate(sequence) if letter not in _CODES), None)
        if wrong is not None:
            raise BadSample(f"letter {sequence[wrong]!r} at base {wrong + 1} is no IUPAC base")
        return torch.tensor([_CODES[letter] for letter in sequence[: self.max_bases]], dtype=torch.uint8)

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """``N`` sequences -> ``bases (N, L)`` uint8 and ``mask (N, L)`` bool, True where real."""
        lengths = torch.tensor([len(item) for item in items])  # (N,)
        bases = torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True)  # (N, L)
        return {"bases": bases, "mask": torch.arange(bases.shape[1]) < lengths.unsqueeze(1)}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """Random sequences of 20 to 200 bases, one in fifty of which is unsure."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(20, min(200, self.max_bases) + 1, (n,), generator=generator).tolist()
        weights = torch.tensor([0.245, 0.245, 0.245, 0.245, 0.02])
        return [torch.multinomial(weights, k, True, generator=generator).to(torch.uint8) for k in lengths]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """The other strand, read backwards, half of the time."""
        flip = torch.rand(len(batch["bases"]), 1, generator=generator) < 0.5  # (N, 1)
        other = other_strand(batch["bases"], batch["mask"])  # (N, L)
        return {**batch, "bases": torch.where(flip, other, batch["bases"])}


def other_strand(bases: Tensor, mask: Tensor) -> Tensor:
    """The reverse complement of each real sequence in ``bases (N, L)``; padding stays 0."""
    place = torch.arange(bases.shape[1])  # (L,)
    back = (mask.sum(1, keepdim=True) - 1 - place).clamp(min=0)  # (N, L)
    turned = bases.gather(1, back)  # (N, L)
    return torch.where(turned < 4, 3 - turned, turned) * mask
