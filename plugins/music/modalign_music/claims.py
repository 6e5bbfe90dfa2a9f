"""Files that claim too much: zip archives, XML and numbers, refused before anything is built."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from modalign import BadSample

MAX_BYTES = 1 << 24
"""Of a MusicXML document, unpacked."""
MAX_ELEMENTS = 1 << 20
"""Of XML, in a whole document."""
_DEPTH = 64
_NUMBERS = {
    "actual-notes": (1, 128),
    "alter": (-3, 3),
    "beat-type": (1, 128),
    "beats": (1, 128),
    "chromatic": (-60, 60),
    "diatonic": (-60, 60),
    "divisions": (1, 100_000),
    "duration": (0, 10_000_000),
    "fifths": (-7, 7),
    "multiple-rest": (1, 1000),
    "normal-notes": (1, 128),
    "octave": (0, 9),
    "octave-change": (-4, 4),
    "staff-lines": (0, 20),
    "staves": (1, 20),
}
"""What music means by these elements of MusicXML; beyond, music21 would count for minutes."""


def unzipped(content: bytes) -> bytes:
    """The score in a zipped MusicXML file, as its container names it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            inside = [n for n in names if not n.startswith("META-INF/")]
            chosen = next((n for n in inside if n.lower().endswith((".xml", ".musicxml"))), None)
            if "META-INF/container.xml" in names:
                container = _member(archive, "META-INF/container.xml")
                for file in parsed_xml(container).iter("{*}rootfile"):
                    path = file.get("full-path", "")
                    chosen = path if path in names else chosen
                    break
            if chosen is None:
                raise BadSample("a zip file without a MusicXML score")
            return _member(archive, chosen)
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        KeyError,
    ) as e:
        if isinstance(e, BadSample):
            raise
        raise BadSample(f"not a readable zip file: {type(e).__name__}") from None
    except zlib.error:
        raise BadSample("not a readable zip file: damaged data") from None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One member, unpacked no further than ``MAX_BYTES``, whatever its header claims."""
    with archive.open(name) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadSample(f"unpacks to more than {MAX_BYTES >> 20} MB")
    return content


def parsed_xml(content: bytes) -> ElementTree.Element:
    """The root of an XML document without entities, of limited depth and size.

    Raises:
        BadSample: if it is none.
    """
    _check_xml(content)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # entities declared elsewhere
        raise BadSample(f"not well-formed XML: {error}") from None


def _check_xml(content: bytes) -> None:
    """Refuse entities, depth and size before a tree is built."""
    count = depth = 0

    def start(name: str, attributes: Any) -> None:
        nonlocal count, depth
        count, depth = count + 1, depth + 1
        if count > MAX_ELEMENTS or depth > _DEPTH:
            raise BadSample(f"XML of more than {MAX_ELEMENTS} elements, or nested deeper than {_DEPTH}")

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    def entity(*declared: Any) -> None:
        raise BadSample("XML that declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, BadSample):
            raise
        reason = expat.ErrorString(error.code) if isinstance(error, expat.ExpatError) else "unknown encoding"
        raise BadSample(f"not well-formed XML: {reason}") from None


def check_number(name: str, text: str) -> None:
    """Refuse a number that no music has; what is no number at all is left to music21."""
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        for number in text[:100].split("+"):
            try:
                inside = low <= float(number) <= high
            except ValueError:  # no number: music21 says so
                continue
            if not inside or len(text) > 20:
                raise BadSample(f"{name} is {text[:20].strip()}, beyond {low} to {high}")
