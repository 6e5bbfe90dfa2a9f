"""The midi modality: performances from MIDI files, as patches of text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from modalign import BadSample, Modality, UserError, file_bytes
from modalign.contracts import Batch
from torch import Generator

from .messages import BEAT, WRITERS
from .patches import collate, vary
from .sound import wav

MAX_BYTES = 1 << 23
MAX_NOTES = 200_000


@dataclass
class Performance:
    """What ``Midi.read`` gives.

    Inputs:
        patches: the performance as text.
        notes: ``(K, 4)`` onset and length in seconds, MIDI pitch, velocity 1 to 127, by onset; drums
            have pitch -1.
    """

    patches: list[str]
    notes: np.ndarray


class Midi(Modality):
    """Standard MIDI files as text, a patch for each beat or, as in CLaMP 3, for each message.

    Times are rounded to a twelfth of a quarter note.

    Inputs:
        per: ``beat``: the notes of a quarter note each in a patch, written ``onset pitch : length``; short,
            for small encoders. ``message``: one note on, note off, program change … each.
        header: keep metre, key and tempo; False to ask an encoder for them.
        max_patches: what is kept of a performance.
        crop, hide: of ``augment``: the largest share that is cut off, and the share of patches whose
            characters are hidden. Notes are never transposed: that would change the key.

    Raises:
        UserError: if ``per`` is neither, max_patches is below 1, or a share is outside 0 to 1.
    """

    name: ClassVar[str] = "midi"

    def __init__(
        self,
        per: str = "beat",
        header: bool = True,
        max_patches: int = 512,
        crop: float = 0.3,
        hide: float = 0.1,
    ) -> None:
        if per not in WRITERS:
            raise UserError(f"midi: per is {per!r}; use one of {', '.join(WRITERS)}")
        if max_patches < 1:
            raise UserError(f"midi: max_patches is {max_patches}; use 1 or more, such as 512")
        if not (0 <= crop < 1 and 0 <= hide < 1):
            raise UserError(f"midi: crop is {crop} and hide {hide}; use shares such as 0.3 and 0.1")
        self.per, self.header, self.max_patches = per, header, max_patches
        self.crop, self.hide = crop, hide

    def read(self, value: Any) -> Performance:
        """A MIDI file's content or path -> its text and its notes.

        Raises:
            BadSample: if it is none, is damaged or too large, or holds no note.
        """
        content = file_bytes(value)
        if len(content) > MAX_BYTES:
            raise BadSample(f"larger than {MAX_BYTES >> 20} MB")
        score = _parse(content)
        count = sum(len(track.notes) for track in score.tracks)
        if not 0 < count <= MAX_NOTES:
            raise BadSample(f"holds {count} notes" if count else "holds no notes")
        patches = WRITERS[self.per](score, self.header, self.max_patches)
        return Performance(patches, _notes(score))

    def collate(self, items: Sequence[Performance]) -> Batch:
        """``N`` performances -> ``patches (N, T, 64)`` uint8, zeros after the end, and ``mask (N, T)``."""
        return collate([item.patches for item in items], self.max_patches)

    def example(self, n: int, seed: int = 0) -> list[Performance]:
        """Melodies that walk about a scale, a chord now and then."""
        import symusic

        draw = random.Random(seed)
        return [self.read(_invented(symusic, draw)) for _ in range(n)]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """A random stretch of each performance, some patches hidden."""
        return vary(batch, generator, self.crop, self.hide)

    def preview(self, item: Performance) -> tuple[str, bytes]:
        """Its first half minute as a WAV, played by plain overtones."""
        return "audio/wav", wav(item.notes, seconds=30.0)


def _parse(content: bytes) -> Any:
    """The file by symusic, which checks every length it reads."""
    import symusic

    if content[:4] != b"MThd" or len(content) < 14:
        raise BadSample("not a MIDI file")
    division = int.from_bytes(content[12:14], "big")
    if not 1 <= division < 0x8000:
        raise BadSample("its times are not in ticks of a quarter note")
    try:
        return symusic.Score.from_midi(content)
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise BadSample(f"not a readable MIDI file: {str(error)[:80]}") from None


def _notes(score: Any) -> np.ndarray:
    """``(K, 4)``, as ``Performance`` holds them, with every change of tempo heard."""
    rows = []
    for track in score.tracks:
        found = track.notes.numpy()
        pitch = np.full(len(track.notes), -1) if track.is_drum else found["pitch"]
        rows.append(np.stack([found["time"], found["duration"], pitch, found["velocity"]], 1))
    notes = np.concatenate(rows).astype(np.float64)  # (K, 4), in ticks
    begin, end = notes[:, 0], notes[:, 0] + notes[:, 1]  # (K,), (K,)
    changes = sorted((t.time, t.mspq / 1e6 / score.tpq) for t in score.tempos)
    ticks = np.array([0.0, *(max(0, at) for at, _ in changes)])  # (C,)
    pace = np.array([0.5 / score.tpq, *(max(p, 1e-6) for _, p in changes)])  # (C,), seconds a tick
    clock = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * pace[:-1])])  # (C,), seconds
    first, last = (np.interp(x, ticks, clock) for x in (begin, end))  # (K,), (K,)
    for x, into in ((begin, first), (end, last)):
        after = x > ticks[-1]
        into[after] = clock[-1] + (x[after] - ticks[-1]) * pace[-1]
    seconds = np.stack([first, last - first, notes[:, 2], notes[:, 3]], 1)
    return seconds[np.lexsort((seconds[:, 2], seconds[:, 0]))].astype(np.float32)


def _invented(symusic: Any, draw: random.Random) -> bytes:
    """A MIDI file of a melody over a few bars."""
    score = symusic.Score(BEAT)
    score.time_signatures.append(symusic.TimeSignature(0, draw.choice((2, 3, 4)), 4))
    score.tempos.append(symusic.Tempo(time=0, qpm=draw.randrange(70, 160)))
    track = symusic.Track(program=draw.choice((0, 24, 40, 73)))
    scale, place, time = (0, 2, 4, 5, 7, 9, 11), draw.randrange(7, 14), 0
    home = draw.randrange(48, 60)
    for _ in range(draw.randrange(12, 40)):
        place = max(0, min(20, place + draw.choice((-2, -1, -1, 1, 1, 2))))
        length = draw.choice((3, 6, 6, 12))
        for step in (0, 2, 4) if draw.random() < 0.1 else (0,):
            pitch = home + 12 * ((place + step) // 7) + scale[(place + step) % 7]
            track.notes.append(symusic.Note(time, length, pitch, draw.randrange(50, 110)))
        time += length
    score.tracks.append(track)
    return score.dumps_midi()
