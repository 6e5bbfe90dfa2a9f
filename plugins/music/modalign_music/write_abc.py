"""Music21 scores as ABC, one line for each measure of each part."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

_MAJOR = ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#")
_ALTERED = {-2: "__", -1: "_", 0: "=", 1: "^", 2: "^^"}
_LONGEST = 64  # quarter notes; what is said to last longer is cut

_UNSURE = 99

Altered = dict[tuple[str, int], int]
"""Semitones that a step in an octave was altered by since the bar began."""


def abc_of_score(score: Any, limit: int) -> Iterator[str]:
    """A music21 score as lines of ABC, measure by measure, its parts one after another in each.

    Beams, tuplets, ties, grace notes, repeats, endings and chord symbols are kept; words, dynamics and
    articulation are not. Overlapping voices of a part are joined by ``&``.

    Inputs:
        score: a ``music21.stream.Score`` with measures.
        limit: most measures; the rest is not looked at.
    """
    parts = [list(part.getElementsByClass("Measure"))[:limit] for part in score.parts][:limit]
    parts = [measures for measures in parts if measures]
    endings = _endings(score)
    signatures: list[dict[str, int]] = [{} for _ in parts]
    yield "L:1/8"
    for i in range(max(map(len, parts), default=0)):
        for p, measures in enumerate(parts):
            if i >= len(measures):
                continue
            voice = f"[V:{p + 1}]" if len(parts) > 1 else ""
            fields = _fields(measures[i], signatures[p])
            if voice and (p or i):
                voice += "".join(f"[{field}]" for field in fields)
            else:
                yield from fields
            yield voice + _bar(measures[i], signatures[p], endings)


def _endings(score: Any) -> dict[int, str]:
    """What first and second endings begin with, by the identity of their first measure."""
    found = {}
    for bracket in score.recurse().getElementsByClass("RepeatBracket"):
        measures = bracket.getSpannedElements()
        if measures and str(bracket.number).isascii():
            found[id(measures[0])] = f"[{str(bracket.number)[:4]} "
    return found


def _fields(measure: Any, signature: dict[str, int]) -> list[str]:
    """Metre and key where they change; ``signature`` then holds the semitones of each altered step."""
    fields = []
    for metre in list(measure.getElementsByClass("TimeSignature"))[:1]:
        fields.append(f"M:{metre.ratioString}")
    for key in list(measure.getElementsByClass("KeySignature"))[:1]:
        signature.clear()
        signature.update({p.step: round(p.alter) for p in key.alteredPitches})
        mode = getattr(key, "mode", None) or "major"
        if mode == "major" or not hasattr(key, "tonic"):
            fields.append(f"K:{_MAJOR[key.sharps + 7]}" if abs(key.sharps) <= 7 else "K:none")
        else:
            tonic = key.tonic.name.replace("-", "b")
            fields.append(f"K:{tonic}{'m' if mode == 'minor' else mode[:3]}")
    return fields


def _bar(measure: Any, signature: dict[str, int], endings: dict[int, str]) -> str:
    """One measure with its barlines."""
    voices = list(measure.voices) or [measure]
    symbols = {c.offset: _symbol(c) for c in measure.recurse().getElementsByClass("ChordSymbol")}
    text = " & ".join(_voice(v, signature, symbols if v is voices[0] else {}) for v in voices)
    left, right = measure.leftBarline, measure.rightBarline
    start = "|:" if getattr(left, "direction", None) == "start" else ""
    if getattr(right, "direction", None) == "end":
        end = ":|"
    else:
        end = {"final": "|]", "double": "||", "light-light": "||"}.get(getattr(right, "type", ""), "|")
    return start + endings.get(id(measure), "") + text + end


def _symbol(chord: Any) -> str:
    """A chord symbol as ABC writes it: ``"Bb7"``."""
    figure = "".join(c for c in str(chord.figure) if c.isascii() and c.isprintable() and c not in '"%')
    return f'"{figure.replace("-", "b")[:16]}"' if figure else ""


def _voice(voice: Any, signature: dict[str, int], symbols: dict[Any, str]) -> str:
    """Notes, chords and rests in order; beamed notes stand together."""
    events = list(voice.notesAndRests)
    events = [e for e in events if "ChordSymbol" not in e.classes and "NoChord" not in e.classes]
    altered: Altered = {}
    text, left = "", 0  # notes of the current tuplet to come
    for i, event in enumerate(events):
        symbol = symbols.get(event.offset, "") if not event.duration.isGrace else ""
        ratio = _tuplet(event)
        if ratio and not left:
            left = 1
            while i + left < len(events) and left < ratio[0] and _tuplet(events[i + left]) == ratio:
                left += 1
            symbol += "(3" if (*ratio, left) == (3, 2, 3) else f"({ratio[0]}:{ratio[1]}:{left}"
        left -= bool(ratio)
        before = set(altered)
        note = _event(event, signature, altered, ratio)
        if event.duration.isGrace:
            note = f"{{{note}}}"
            for key in altered.keys() - before:  # do its accidentals hold? Readers disagree
                altered[key] = _UNSURE
            if text.endswith("}"):  # grace notes in a row share their braces
                text, note = text[:-1], note[1:]
        text += symbol + note
        if not _beamed(event) and not event.duration.isGrace and not left:
            text += " "
    return text.strip() or "x"


def _event(event: Any, signature: dict[str, int], altered: Altered, ratio: tuple[int, int] | None) -> str:
    if event.isRest:
        name, tie = ("x" if event.style.hideObjectOnPrint else "z"), ""
    else:
        pitches = [p for p in event.pitches if -1 <= p.octave <= 10] if event.pitches else []
        names = [_pitch(p, signature, altered) for p in pitches]
        name = names[0] if len(names) == 1 else f"[{''.join(names)}]" if names else "x"
        tie = "-" if event.tie is not None and event.tie.type in ("start", "continue") else ""
    return name + _length(event, ratio) + tie


def _pitch(pitch: Any, signature: dict[str, int], altered: Altered) -> str:
    """``^c'``: an accidental only where key signature and bar do not say it already."""
    step, octave, alter = pitch.step, pitch.implicitOctave, round(pitch.alter)
    mark = ""
    if altered.get((step, octave), signature.get(step, 0)) != alter:
        mark = _ALTERED.get(alter, "")
        altered[step, octave] = alter
    if octave >= 5:
        return mark + step.lower() + "'" * (octave - 5)
    return mark + step + "," * (4 - octave)


def _tuplet(event: Any) -> tuple[int, int] | None:
    """``(3, 2)``: three in the time of two."""
    tuplets = event.duration.tuplets
    return (tuplets[0].numberNotesActual, tuplets[0].numberNotesNormal) if len(tuplets) == 1 else None


def _length(event: Any, ratio: tuple[int, int] | None) -> str:
    """In eighths, as written, before a tuplet shortens it: ``2``, ``/2``, ``3/2``."""
    if event.duration.isGrace:
        return ""
    quarters = Fraction(event.duration.quarterLength).limit_denominator(1024)
    eighths = 2 * min(quarters, Fraction(_LONGEST))
    if ratio and ratio[1]:
        eighths = eighths * ratio[0] / ratio[1]
    above = str(eighths.numerator) if eighths.numerator != 1 else ""
    return above + (f"/{eighths.denominator}" if eighths.denominator != 1 else "")


def _beamed(event: Any) -> bool:
    """Does a beam lead from it to the next note?"""
    beams = getattr(event, "beams", None)
    return beams is not None and any(b.type in ("start", "continue") for b in beams.beamsList)
