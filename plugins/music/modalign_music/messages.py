"""MIDI performances as lines of text: one for each beat, or one for each message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

BEAT = 12
"""Steps that times are rounded to, in a quarter note: sixteenths and triplets fall on them."""

_STEPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
PITCHES = tuple(f"{name}{octave}" for octave in range(-1, 10) for name in _STEPS)
"""Names by MIDI pitch; middle C, 60, is ``C4``."""
_MAJOR = ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#")
_MINOR = ("Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#", "A#")


def beats(score: Any, header: bool, limit: int) -> list[str]:
    """A line for each quarter note: ``0G4:6 6A4:6`` is G and then A, an eighth note each.

    Notes of another program than 0 follow ``@program``, drums are ``*number``; ``z3`` is three beats in
    which no note begins. Velocities are left out.

    Inputs:
        score: a ``symusic.Score`` in ticks.
        header: with ``M:``, ``K:`` and ``Q:`` lines for metre, key and tempo.
        limit: most lines.
    """
    notes = []  # (beat, program, onset within the beat, pitch, text)
    for track in score.tracks:
        program = 0 if track.is_drum else track.program
        for time, duration, pitch, _ in _rows(track):
            start = _steps(time, score.tpq)
            length = min(max(1, _steps(duration, score.tpq)), 99 * BEAT)
            name = f"*{pitch}" if track.is_drum else PITCHES[pitch]
            at = start % BEAT
            notes.append((start // BEAT, program, at, pitch, f"{at}{name}:{length}"))
    notes.sort()
    fields = sorted(set(_fields(score))) if header else []
    lines: list[str] = []
    past = 0  # the beat that comes next
    for beat, group in groupby(notes, lambda note: note[0]):
        while fields and fields[0][0] <= beat * BEAT:
            lines.append(fields.pop(0)[1])
        if beat > past:
            lines.append(f"z{beat - past}")
        past = beat + 1
        words = []
        for program, part in groupby(group, lambda note: note[1]):
            words += [f"@{program}"] if program else []
            words += [note[4] for note in part]
        lines.append(" ".join(words))
        if len(lines) >= limit:
            break
    return lines[:limit]


def messages(score: Any, header: bool, limit: int) -> list[str]:
    """A line for each message, after CLaMP 3: its name, steps since the one before, track, numbers.

    Inputs: as ``beats``; ``header`` adds the messages ``metre``, ``key`` and ``tempo``.
    """
    found = []  # (time, order among what is at one time, text without the time)
    if header:
        for time, field in sorted(set(_fields(score))):
            name = {"M": "metre", "K": "key", "Q": "tempo"}[field[0]]
            found.append((time, 0, name, f" {field[2:]}"))
    for number, track in enumerate(score.tracks):
        found.append((0, 1, "drums" if track.is_drum else "program", f" {number} {track.program}"))
        for begin, duration, pitch, velocity in _rows(track):
            start, end = _steps(begin, score.tpq), _steps(begin + duration, score.tpq)
            found.append((start, 3, "note_on", f" {number} {pitch} {velocity}"))
            found.append((max(end, start + 1), 2, "note_off", f" {number} {pitch}"))
    found.sort()
    lines, before = [], 0
    for time, _, name, rest in found[:limit]:
        lines.append(f"{name} {time - before}{rest}")
        before = time
    return lines


def _fields(score: Any) -> Iterator[tuple[int, str]]:
    """Metre, key and tempo with their times in steps."""
    for metre in score.time_signatures:
        yield _steps(metre.time, score.tpq), f"M:{metre.numerator}/{metre.denominator}"
    for key in score.key_signatures:
        names = _MINOR if key.tonality else _MAJOR
        if -7 <= key.key <= 7:
            yield _steps(key.time, score.tpq), f"K:{names[key.key + 7]}{'m' if key.tonality else ''}"
    for tempo in score.tempos:
        if tempo.mspq > 0:
            yield _steps(tempo.time, score.tpq), f"Q:{round(min(60e6 / tempo.mspq, 9999))}"


def _steps(ticks: int, tpq: int) -> int:
    """Ticks to the nearest step, never before the beginning."""
    return max(0, (2 * ticks * BEAT + tpq) // (2 * tpq))


def _rows(track: Any) -> Iterator[tuple[int, int, int, int]]:
    """Time, duration, pitch and velocity of each note."""
    columns = track.notes.numpy()
    return zip(*(columns[name].tolist() for name in ("time", "duration", "pitch", "velocity")), strict=True)


WRITERS: dict[str, Callable[[Any, bool, int], list[str]]] = {"beat": beats, "message": messages}
