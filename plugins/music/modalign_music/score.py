"""The score modality: written music in, bars of ABC out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from modalign import BadSample, Modality, UserError, file_bytes
from modalign.contracts import Batch
from torch import Generator

from .bars import bars_of_abc
from .engrave import engraved
from .notation import abc_of_humdrum, abc_of_musicxml
from .patches import collate, vary

MAX_TEXT = 1 << 23
"""Bytes of a file as it lies, or characters of a literal."""
_MARKUP = re.compile(rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*\x00?<")


class Score(Modality):
    """Written music as bars of ABC, from ABC, MusicXML (.musicxml, .xml, .mxl) or Humdrum ``**kern``.

    A string is the music itself, not a path. Bars keep their beams and barlines; titles, lyrics and
    other words are dropped, so that an encoder cannot read what it is asked for.

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
        """ABC text, or a file of any of the formats, as bytes or a path -> its bars.

        Raises:
            BadSample: if it holds no music, or is of another kind, damaged or too large.
        """
        if isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise BadSample(f"longer than {MAX_TEXT >> 20} million characters")
            text = value
        else:
            content = file_bytes(value)
            if len(content) > MAX_TEXT:
                raise BadSample(f"larger than {MAX_TEXT >> 20} MB")
            if content[:4] == b"MThd":
                raise BadSample("a MIDI file holds a performance: read it as midi")
            if content[:2] == b"PK" or _MARKUP.match(content):
                text = abc_of_musicxml(content, self.max_patches)
            else:
                text = _decoded(content)
        text = text.lstrip("\ufeff").lstrip()
        if text.startswith("<"):
            text = abc_of_musicxml(text.encode("utf-8", "replace"), self.max_patches)
        elif "**kern" in text[:10_000] and not text.startswith(("X:", "%")):
            text = abc_of_humdrum(text, self.max_patches)
        return bars_of_abc(text, self.header, self.chords, self.max_patches)

    def collate(self, items: Sequence[Sequence[str]]) -> Batch:
        """``N`` lists of bars -> ``patches (N, T, 64)`` uint8, zeros after the end, and ``mask (N, T)``."""
        return collate(items, self.max_patches)

    def example(self, n: int, seed: int = 0) -> list[list[str]]:
        """Tunes that walk about a scale, with chord symbols."""
        draw = random.Random(seed)
        return [self.read(_invented(draw)) for _ in range(n)]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """A random stretch of each score, some bars hidden."""
        return vary(batch, generator, self.crop, self.hide)

    def preview(self, item: Sequence[str]) -> tuple[str, bytes]:
        """The notes as engraved by verovio, where it is installed; else as ABC."""
        return engraved(item) or ("text/plain", "\n".join(item).encode())


def _decoded(content: bytes) -> str:
    """Text in UTF-8 or, as old ABC files are, Latin-1.

    Raises:
        BadSample: if it holds the control characters of a binary file.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if any(c in text for c in "\0\1\2\3\4\5\6\7"):
        raise BadSample("a binary file of an unknown kind")
    return text


def _invented(draw: random.Random) -> str:
    """A tune in ABC."""
    metre, beats = draw.choice((("2/4", 4), ("3/4", 6), ("4/4", 8), ("6/8", 6)))
    notes, place = "DEFGABcdefga", draw.randrange(2, 9)
    bars = []
    for _ in range(draw.randrange(6, 24)):
        bar, left = f'"{draw.choice("DGAC")}"' if draw.random() < 0.5 else "", beats
        while left:
            length = draw.choice([n for n in (1, 1, 2, 2, 3) if n <= left])
            place = max(0, min(len(notes) - 1, place + draw.choice((-2, -1, -1, 0, 1, 1, 2))))
            bar += notes[place] + (str(length) if length > 1 else "") + (" " if draw.random() < 0.3 else "")
            left -= length
        bars.append(bar.strip() + "|")
    return f"X:1\nM:{metre}\nL:1/8\nK:{draw.choice(('D', 'G', 'Am', 'Em'))}\n" + "\n".join(bars) + "]"
