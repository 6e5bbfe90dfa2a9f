"""The score modality: written music in, bars of ABC out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from modalign import BadSample, Modality, UserError, file_bytes
from modalign.contracts import Batch
from torch import Generator

from .bars import bars_of_abc
from .patches import collate, vary

MAX_BYTES = 1 << 20


class Score(Modality):
    """Written music as bars of ABC, from ABC itself.

    Inputs:
        header: keep metre, unit length and key, each as a "bar" of its own; False to ask an encoder
            for them, or to compare notes alone.
        chords: keep chord symbols.
        max_patches: bars (pieces of 64 characters, to be exact) that are kept of a score.
        crop, hide: of ``augment``: the largest share of a score that is cut off, and the share of
            bars whose characters are hidden. Notes are never transposed: that would change the key.

    Raises:
        UserError: if max_patches is below 1, or a share is outside 0 to 1.
    """

    name: ClassVar[str] = "score"
    literal: ClassVar[bool] = True

    def __init__(
        self,
        header: bool = True,
        chords: bool = True,
        max_patches: int = 512,
        crop: float = 0.3,
        hide: float = 0.1,
    ) -> None:
        if max_patches < 1:
            raise UserError(f"score: max_patches is {max_patches}; use 1 or more, such as 512")
        if not (0 <= crop < 1 and 0 <= hide < 1):
            raise UserError(f"score: crop is {crop} and hide {hide}; use shares such as 0.3 and 0.1")
        self.header, self.chords, self.max_patches = header, chords, max_patches
        self.crop, self.hide = crop, hide

    def read(self, value: Any) -> list[str]:
        """ABC text, or a file's content or path -> its bars.

        Raises:
            BadSample: if it holds no music, or is of another kind or too large.
        """
        if not isinstance(value, str):
            content = file_bytes(value)
            value = content[: MAX_BYTES + 1].decode("utf-8", "replace")
        return bars_of_abc(value, self.header, self.chords, self.max_patches)

    def collate(self, items: Sequence[Sequence[str]]) -> Batch:
        """``N`` lists of bars -> ``patches (N, T, 64)`` uint8, zeros after the end, and ``mask (N, T)``."""
        return collate(items, self.max_patches)

    def example(self, n: int, seed: int = 0) -> list[list[str]]:
        draw = random.Random(seed)
        return [
            [draw.choice("abcde") * draw.randint(1, 4) + "|" for _ in range(draw.randint(4, 20))]
            for _ in range(n)
        ]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """A random stretch of each score, some bars hidden."""
        return vary(batch, generator, self.crop, self.hide)

    def preview(self, item: Sequence[str]) -> tuple[str, bytes]:
        return "text/plain", "\n".join(item).encode()
