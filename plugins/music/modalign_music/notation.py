"""MusicXML and Humdrum files as ABC, through music21."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from modalign import BadSample

from .write_abc import abc_of_score

MAX_BYTES = 1 << 24
"""Of a MusicXML document, unpacked, or a Humdrum file."""
MAX_ELEMENTS = 1 << 20
"""Of XML, in a whole document."""
MAX_READ = 60_000
"""XML elements or Humdrum tokens that music21 is given: what one read may cost."""
_DEPTH = 64
_ONE = threading.Lock()  # standard error is the process's own
_SPINES, _TOKEN = 128, 200
_METRE = re.compile(r"\*M(\d+)/(\d+)")
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


def abc_of_musicxml(content: bytes, limit: int) -> str:
    """A MusicXML document, zipped (.mxl) or not, as ABC of its first ``limit`` measures.

    Raises:
        BadSample: if it is none, declares entities, or is too large.
    """
    if content[:2] == b"PK":
        content = _unzipped(content)
    _check_xml(content)
    root = ElementTree.fromstring(content)
    if root.tag != "score-partwise":
        raise BadSample(f"expected a MusicXML score-partwise, got <{root.tag[:40]}>")
    parts = root.findall("part")[:limit]
    most = -(-limit // max(1, len(parts)))
    for part in parts:
        part[:] = part.findall("measure")[:most]
    root[:] = [child for child in root if child.tag == "part-list"] + parts
    for element in root.iter():
        _check_number(element.tag, element.text or "")
    _check_size(sum(1 for _ in root.iter()), "elements")

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
            _check_number("beats", beats)
            _check_number("beat-type", unit)
        measures += line.startswith("=")
        if measures > limit + 1:
            lines.append("\t".join(["*-"] * (line.count("\t") + 1)))
            break
        lines.append(line)
    _check_size(sum(line.count("\t") + 1 for line in lines), "tokens")

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


def _unzipped(content: bytes) -> bytes:
    """The score in a zipped MusicXML file, as its container names it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            inside = [n for n in names if not n.startswith("META-INF/")]
            chosen = next((n for n in inside if n.lower().endswith((".xml", ".musicxml"))), None)
            if "META-INF/container.xml" in names:
                container = _member(archive, "META-INF/container.xml")
                _check_xml(container)
                for file in ElementTree.fromstring(container).iter("{*}rootfile"):
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


def _check_size(count: int, what: str) -> None:
    if count > MAX_READ:
        raise BadSample(f"holds {count} {what} in the measures to read, more than {MAX_READ}")


def _check_number(name: str, text: str) -> None:
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        for number in text[:100].split("+"):
            try:
                inside = low <= float(number) <= high
            except ValueError:  # no number: music21 says so
                continue
            if not inside or len(text) > 20:
                raise BadSample(f"{name} is {text[:20].strip()}, beyond {low} to {high}")
