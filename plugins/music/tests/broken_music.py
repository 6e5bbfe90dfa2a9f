"""Broken music files of every kind, and a child process that reads them within limits."""

from __future__ import annotations

import io
import json
import random
import resource
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

TUNE = """X:1
T:The Löwe's Rant
M:6/8
L:1/8
K:Em
|:"Em"B2A G2E|"B7"^F=GF {c}"Em"E3:|[1 "G"[GBd]2G (3G2A2B2|"D"A3- A2z|]
w: la la la
"""

XML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 3.1 Partwise//EN"
 "http://www.musicxml.org/dtds/partwise.dtd">
<score-partwise version="3.1"><part-list><score-part id="P1"><part-name>Löwe</part-name></score-part>
<score-part id="P2"><part-name>B</part-name></score-part></part-list>
<part id="P1"><measure number="1"><attributes><divisions>2</divisions><key><fifths>1</fifths></key>
<time><beats>3</beats><beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line></clef></attributes>
<harmony><root><root-step>G</root-step></root><kind>major</kind></harmony>
<note><pitch><step>G</step><octave>4</octave></pitch><duration>2</duration><type>quarter</type></note>
<note><chord/><pitch><step>B</step><alter>-1</alter><octave>4</octave></pitch><duration>2</duration></note>
<note><rest/><duration>4</duration></note></measure>
<measure number="2"><note><pitch><step>A</step><octave>5</octave></pitch><duration>6</duration>
<tie type="start"/></note><backup><duration>6</duration></backup><note><pitch><step>D</step><octave>3</octave>
</pitch><duration>6</duration><voice>2</voice></note><barline location="right">
<bar-style>light-heavy</bar-style><repeat direction="backward"/></barline></measure></part>
<part id="P2"><measure number="1"><note><rest measure="yes"/><duration>6</duration></note></measure></part>
</score-partwise>
"""

KERN = """!!!OTL: Löwe
**kern\t**kern\t**text
*clefF4\t*clefG2\t*
*k[f#]\t*k[f#]\t*
*G:\t*G:\t*
*M3/4\t*M3/4\t*
=1\t=1\t=1
4G\t8gL\tla
.\t8aJ\tla
4B 4d\t6b\t.
.\t12cc#\t.
4r\t[4dd\t.
=2\t=2\t=2
*\t*^\t*
2.G\t2.dd]\t2.r\t.
*\t*v\t*v\t*
==\t==\t==
*-\t*-\t*-
"""


def midi() -> bytes:
    """Two tracks, running status, a tempo change, a pitch wheel, words in Latin-1."""
    head = b"MThd\0\0\0\6\0\1\0\2\0\x60"
    one = b"\0\xff\x03\x04L\xf6we\0\xff\x58\4\6\3\x18\x08\0\xff\x59\2\1\0\0\xff\x51\3\x07\xa1\x20"
    one += b"\x60\xff\x51\3\x05\0\0\0\xff\x2f\0"
    two = b"\0\xc0\x18\0\x90\x43\x5a\x60\x43\0\0\x45\x5a\x30\x45\0\0\xe0\0\x40\0\x90\x3c\x40\0\x40\x40"
    two += b"\x81\x40\x3c\0\0\x40\0\0\xff\x2f\0"
    return head + b"".join(b"MTrk" + len(t).to_bytes(4, "big") + t for t in (one, two))


def mxl(inside: bytes = XML.encode(), name: str = "löwe.musicxml") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        container = f'<container><rootfiles><rootfile full-path="{name}"/></rootfiles></container>'
        archive.writestr("META-INF/container.xml", container)
        archive.writestr(name, inside)
    return file.getvalue()


WHOLE = {
    "abc": TUNE.encode(),
    "musicxml": XML.encode(),
    "mxl": mxl(),
    "kern": KERN.encode(),
    "midi": midi(),
}


def absurd(kind: str) -> Iterator[bytes]:
    """Files made to cost memory or time, and files of other kinds."""
    yield from (b"", b"\0", b"\xff" * 1000, "Grüße, 世界 🎵".encode(), b"PK\3\4", b"<", b"RIFF\0\0\0\0WAVE")
    yield from (whole for other, whole in WHOLE.items() if other != kind)
    if kind == "abc":
        yield b"|" * 500_000
        yield b":" * 500_000
        yield b'"' * 500_001
        yield b"[" * 500_000 + b"c"
        yield b"K:" * 200_000
        yield b"c" * 2_000_000
        yield b"c2 " * 500_000
        yield b"c|" * 1_000_000
        yield b"c" + b"9" * 500_000 + b"|"
        yield b"c|\n" + b"M:6/8\n" * 200_000
        yield "c♯|d♭|".encode()
        yield b"c" * (9 << 20)
    if kind in ("musicxml", "mxl"):
        for old, new in (
            ("<duration>2<", "<duration>999999999999<"),
            ("<duration>2<", f"<duration>{'9' * 6000}<"),
            ("<duration>2<", "<duration>nan<"),
            ("<duration>2<", "<duration>1e308<"),
            ("<divisions>2<", "<divisions>0<"),
            ("<divisions>2<", "<divisions>-1<"),
            ("<octave>4<", "<octave>999999999<"),
            ("<octave>4<", "<octave>-999<"),
            ("<alter>-1<", "<alter>1e300<"),
            ("<fifths>1<", "<fifths>100000<"),
            ("<beats>3<", "<beats>99999999<"),
            ("<beats>3<", f"<beats>{'1+' * 5000}1<"),
            ("<beat-type>4<", "<beat-type>0<"),
            ("<duration>6</duration></backup>", "<duration>999999999</duration></backup>"),
            ("<backup>", "<forward><duration>99999999999</duration></forward><backup>"),
            ("<note><rest/>", "<note><rest/><time-modification><actual-notes>0</actual-notes>"
             "<normal-notes>0</normal-notes></time-modification>"),
            ("<clef>", "<transpose><chromatic>99999999</chromatic></transpose><clef>"),
            ("<clef>", "<measure-style><multiple-rest>99999999</multiple-rest></measure-style><clef>"),
            ("<clef>", "<staves>99999999</staves><clef>"),
            ("<part-name>Löwe", "<part-name>" + "L" * 1_000_000),
            ("<!DOCTYPE score-partwise PUBLIC", '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><!--'),
            ("<measure number=\"2\">", "<measure number=\"2\">" + "<a>" * 50_000),
            ("<measure number=\"2\">", "<measure number=\"2\"><note/>" * 100_000),
            ("<backup>", "<backup/>" * 100_000 + "<backup>"),
            ("<part id", "<part id='P1'/>" * 100_000 + "<part id"),
            ("partwise", "timewise"),
            ("UTF-8", "UTF-16"),
            ("UTF-8", "klingon"),
        ):  # fmt: skip
            content = XML.replace(old, new).encode()
            yield content if kind == "musicxml" else mxl(content)
        for encoding in ("utf-16", "utf-16-le", "latin-1"):
            yield XML.replace("UTF-8", encoding).encode(encoding)
    if kind == "mxl":
        yield mxl(b"<a>" + b" " * (20 << 20) + b"</a>")
        yield mxl(b"")
        yield mxl(b"\0" * (20 << 20), "a.xml")
        yield mxl(name="../../etc/passwd.xml")
        yield mxl(name="/dev/zero.xml")
        yield mxl(mxl())
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for i in range(5_000):
                archive.writestr(f"{i}.xml", "")
        yield file.getvalue()
    if kind == "kern":
        for old, new in (
            ("4G\t", "4" * 5000 + "G\t"),
            ("4G\t", "0000000000G\t"),
            ("4G\t", "1%999999999G\t"),
            ("4G\t", "4" + "." * 100_000 + "G\t"),
            ("4G\t", "4" + "G" * 100_000 + "\t"),
            ("4G\t", "4G" + "#" * 100_000 + "\t"),
            ("*M3/4\t", "*M99999999/0\t"),
            ("*M3/4\t", "*M3/99999999\t"),
            ("*k[f#]\t", "*k[" + "f#" * 10_000 + "]\t"),
            ("*G:\t", "*H:\t"),
            ("*\t*^\t*\n", "*^\t*^\t*^\n" * 12),
            ("*-\t*-\t*-\n", ""),
            ("4r\t", "4r\t" * 30_000),
            ("=2\t=2\t=2\n", "=2\t=2\t=2\n" * 20_000),
            ("=2\t=2\t=2\n", "4r\t4r\t.\n" * 50_000),
        ):
            yield KERN.replace(old, new).encode()
    if kind == "midi":
        whole = midi()
        for at, new in (
            (8, b"\xff\xff"),
            (10, b"\xff\xff"),
            (12, b"\0\0"),
            (12, b"\xe7\x28"),
            (12, b"\x7f\xff"),
        ):
            yield whole[:at] + new + whole[at + 2 :]
        for body in (
            b"\xff\xff\xff\x7f\x90\x40\x40\xff\xff\xff\x7f\x40\0\0\xff\x2f\0",
            b"\xff\xff\xff\x7f\x90\x40\x40\0\x40\0" * 2000,
            b"\0\x90\x40\x40" * 300_000,
            b"\0\x90\x40\x40\0\x40\0" * 300_000,
            b"\0\xf0\xff\xff\xff\x7f" * 10,
            b"\0\xff\x51\3\0\0\0\x60\x90\x40\x40\x60\x40\0",
            b"\0\xff\x58\4\xff\xff\xff\xff\0\x90\x40\x40\x60\x40\0",
            b"\0\xff\x59\2\x80\x7f\0\x90\x40\x40\x60\x40\0",
            b"\0\xff\x01\xff\xff\xff\x7f",
            b"\0\x40\x40" * 1000,
        ):
            yield b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + len(body).to_bytes(4, "big") + body
        yield b"MThd\0\0\0\6\0\1\xff\xff\0\x60" + b"MTrk\0\0\0\4\0\xff\x2f\0" * 65_535
        yield b"MThd" + b"\xff" * 20
        yield whole + b"\0" * (9 << 20)


def broken(kind: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """The absurd ones, then random damage, ``count`` in all."""
    made = list(absurd(kind))
    yield from made
    whole, draw = WHOLE[kind], random.Random(seed)
    for i in range(count - len(made)):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 5, 30))):
            at = draw.randrange(len(content))
            match (i + draw.randrange(2)) % 6:
                case 0:
                    del content[at:]
                case 1:
                    content[at] ^= 1 << draw.randrange(8)
                case 2:
                    content[at] = draw.randrange(256)
                case 3:
                    del content[at : at + draw.randrange(1, 40)]
                case 4:
                    content[at:at] = content[draw.randrange(len(content)) :][: draw.randrange(1, 80)]
                case _:
                    content[at:at] = draw.choice((b"\xff", b"9" * 12, "ß世🎵".encode(), b"<", b"\t", b"\0"))
            if not content:
                content = bytearray(b"\1")
        yield bytes(content)


def main(kind: str, count: int, preview: bool) -> None:
    """Read them all; print what happened, how long the slowest took, and the memory as JSON."""
    from modalign import BadSample
    from modalign_music.midi import Midi
    from modalign_music.score import Score

    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    modality = Midi() if kind == "midi" else Score()
    modality.read(WHOLE[kind])  # imports and tables, before the clock starts
    reasons: list[str] = []
    legal = 0
    slowest = 0.0
    for content in broken(kind, count):
        start = time.perf_counter()
        try:
            item = modality.read(content)
        except BadSample as error:
            reasons.append(str(error))
        else:
            legal += 1
            batch = modality.collate([item])
            assert 0 < batch["patches"].shape[1] <= 512
            if preview:
                modality.preview(item)
        slowest = max(slowest, time.perf_counter() - start)
    memory = peak_mb()
    for reason in reasons:  # short words; no path, no address
        assert 0 < len(reason) < 200, reason
        assert "/" not in reason, reason
        assert " at 0x" not in reason, reason
    print(json.dumps({"bad": len(reasons), "legal": legal, "slowest": slowest, "megabytes": memory}))


def peak_mb() -> int:
    """This process's own peak; what getrusage says may be its parent's, from before it was replaced."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3)
