"""ABC text as a list of bars, the form in which encoders read scores."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modalign import BadSample

_FIELD = re.compile(r"([A-Za-z+]):(?![|:])(.*)")  # `d:|` on a line of its own is a note and a barline
_TOKEN = re.compile(
    r"""(?P<string>"[^"]*")"""
    r"|(?P<ornament>![^!\s]*!)"
    r"|(?P<inline>\[[A-Za-z]:[^\]]*\])"
    r"|(?P<barline>\[?[:|]*\|[:|]*\]?|::+)"
    r"|(?P<space>\s+)"
    r"|(?P<note>[A-Ga-gxzXZ])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_ANNOTATIONS = tuple("^_<>@")  # a string that begins so is words, not a chord symbol
_BARLINES = ":|[] "
_LONG = 64  # characters in a bar, on average; a text without barlines is cut by it


def bars_of_abc(text: str, header: bool = True, chords: bool = True, limit: int = 512) -> list[str]:
    """The bars of the first tune in an ABC text, each with its closing barline, in the order written.

    Words are dropped: titles, lyrics, annotations, comments. Beams (spaces inside a bar) are kept.

    Inputs:
        text: ABC 2.1, a whole tune or the body of one.
        header: keep metre, unit length and key (``M:``, ``L:``, ``K:``), each as one more "bar", at the
            start and where they change; False drops them everywhere.
        chords: keep chord symbols such as ``"Gm"``.
        limit: most bars; what follows is dropped.

    Raises:
        BadSample: if the text holds no music, or is something else.
    """
    bars: list[str] = []
    bar, notes, letters = "", 0, 0  # the bar being read; notes and letters so far
    for kind, piece in _pieces(text, header, chords):
        if kind == "tune":
            if notes:
                break
        elif kind == "field":
            if bar.strip(_BARLINES):
                bars.append(bar.strip())
                bar = ""
            bars.append(piece)
        elif kind == "space":
            bar += " " if bar and not bar.endswith(" ") else ""
        elif kind == "barline":
            if bar.strip(_BARLINES):
                bars.append((bar + piece).strip())
                bar = ""
            elif notes and not bar and (piece[0] == ":" or piece[-1] != ":"):
                bars[-1] += piece if len(bars[-1]) < 60 else ""  # another barline at the end of a bar
            else:
                bar += piece  # it opens the next bar
        else:
            notes += kind == "note"
            letters += piece.isalpha()
            bar += piece
        if len(bars) >= limit or len(bar) > limit * _LONG:
            break
    if bar.strip(_BARLINES):
        bars.append(bar.strip())
    if not notes:
        raise BadSample("holds no notes")
    if letters > 2 * notes:
        raise BadSample("not ABC: most letters are no notes")
    return bars[:limit]


def _pieces(text: str, header: bool, chords: bool) -> Iterator[tuple[str, str]]:
    """The text token by token: ``(kind, piece)``; a ``field`` stands on a line of its own."""
    for line in _lines(text):
        found = _FIELD.fullmatch(line)
        if found:
            field = _field(found[1], found[2], header)
            if field:
                yield "field", field
            elif found[1] == "X":
                yield "tune", line
            continue
        for token in _TOKEN.finditer(line + " "):
            kind, piece = str(token.lastgroup), token[0]
            if kind == "inline":
                piece = _field(piece[1], piece[3:-1], header)
                piece = f"[{piece}]" if piece else ""
            elif kind == "string":
                piece = piece if chords and not piece[1:].startswith(_ANNOTATIONS) else ""
                piece = piece.encode("ascii", "ignore").decode()
            elif kind in ("other", "ornament") and not (piece.isascii() and piece.isprintable()):
                raise BadSample(f"not ABC: character U+{ord(max(piece)):04X} among the notes")
            if piece:
                yield kind, piece


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, directives, blocks of words and the marks of continued lines."""
    words = False
    for line in text.splitlines():
        if line.startswith("%%begin"):
            words = True
        elif line.startswith("%%end"):
            words = False
        elif not words:
            line = line.partition("%")[0].rstrip().removesuffix("\\")
            if line.strip():
                yield line.strip()


def _field(name: str, value: str, header: bool) -> str:
    """What is kept of an information field: ``M:6/8``, ``V:1``; empty if nothing is."""
    value = "".join(c for c in value if c.isascii() and c.isprintable()).strip()
    if name == "V":  # a voice's number or name, not its properties
        return f"V:{value.split()[0][:16]}" if value else ""
    if header and name in ("M", "L", "K"):
        return f"{name}:{value[:60]}" if value else ""
    return ""
