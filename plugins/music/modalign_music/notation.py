"""MusicXML and Humdrum files as ABC, through music21."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

from modalign import BadSample

from .claims import check_number, parsed_xml, unzipped
from .write_abc import abc_of_score

READ_ELEMENTS, READ_TOKENS = 60_000, 30_000
"""Of XML and of Humdrum, that music21 is given: what one read may cost, some ten seconds."""
_TANDEM = 10
"""Tokens that one of a line of clefs, keys or metres counts for: music21 takes so much longer over them."""
_ONE = threading.Lock()  # standard error is the process's own
_SPINES, _TOKEN = 128, 200
_METRE = re.compile(r"\*M(\d+)/(\d+)")


def abc_of_musicxml(content: bytes, limit: int) -> str:
    """A MusicXML document, zipped (.mxl) or not, as ABC of its first ``limit`` measures.

    Raises:
        BadSample: if it is none, declares entities, or is too large.
    """
    if content[:2] == b"PK":
        content = unzipped(content)
    root = parsed_xml(content)
    if root.tag != "score-partwise":
        raise BadSample(f"expected a MusicXML score-partwise, got <{root.tag[:40]}>")
    parts = root.findall("part")[:limit]
    most = -(-limit // max(1, len(parts)))
    for part in parts:
        part[:] = part.findall("measure")[:most]
    root[:] = [child for child in root if child.tag == "part-list"] + parts
    for element in root.iter():
        check_number(element.tag, element.text or "")
    _check_size(sum(1 for _ in root.iter()), READ_ELEMENTS, "elements")

    def load() -> Any:
        from music21.musicxml.xmlToM21 import MusicXMLImporter

        importer = MusicXMLImporter()
        importer.xmlRootToScore(root, importer.stream)
        return importer.stream

    return _abc(load, "MusicXML", limit)


def abc_of_humdrum(text: str, limit: int) -> str:
    """A Humdrum file with ``**kern`` spines as ABC of its first ``limit`` measures.

    Raises:
        BadSample: if it is none, or too large.
    """
    lines, measures = [], 0
    for line in text.splitlines():
        if line.startswith("!"):  # comments and names
            continue
        if line.count("\t") >= _SPINES or (len(line) > _TOKEN and max(map(len, line.split("\t"))) > _TOKEN):
            raise BadSample(f"a line of {_SPINES} spines or more, or a token longer than {_TOKEN} characters")
        for beats, unit in _METRE.findall(line):
            check_number("beats", beats)
            check_number("beat-type", unit)
        measures += line.startswith("=")
        if measures > limit + 1:
            lines.append("\t".join(["*-"] * (line.count("\t") + 1)))
            break
        lines.append(line)
    tokens = sum((line.count("\t") + 1) * (_TANDEM if line.startswith("*") else 1) for line in lines)
    _check_size(tokens, READ_TOKENS, "tokens")

    def load() -> Any:
        from music21.humdrum.spineParser import HumdrumDataCollection

        collection = HumdrumDataCollection("\n".join(lines))
        collection.parse()
        return collection.stream

    return _abc(load, "Humdrum", limit)


def _abc(load: Callable[[], Any], kind: str, limit: int) -> str:
    """What music21 reads, as ABC; whatever it trips over is the file's fault, and its words stay in."""
    try:
        with _ONE, warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return "\n".join(itertools.islice(abc_of_score(load(), limit), 4 * limit))
    except Exception as error:  # music21 raises whatever its parts raise
        raise BadSample(f"not readable {kind}: music21 stopped with {type(error).__name__}") from None


def _check_size(count: int, most: int, what: str) -> None:
    if count > most:
        raise BadSample(f"holds {count} {what} in the measures to read, more than {most}")
