"""Reading speed: items per CPU second of each reader beside the bare call of the library below it.

    python benchmarks/read_music.py [--seconds 2]

Files are made here, a tune of 32 bars in each format. The ratio is the library's time over ours: 1.00 is
as fast as the library alone, which gives objects and no bars yet.
"""

from __future__ import annotations

import argparse
import io
import random
import time
import zipfile
from collections.abc import Callable
from typing import Any

import music21
import symusic
from modalign_music.midi import Midi
from modalign_music.score import Score
from music21.musicxml.m21ToXml import GeneralObjectExporter
from music21.musicxml.xmlToM21 import MusicXMLImporter


def tune(seed: int = 0) -> str:
    draw = random.Random(seed)
    bars = [
        " ".join("".join(draw.choice("CDEFGABcdefg") for _ in range(4)) for _ in range(2)) for _ in range(32)
    ]
    return "X:1\nM:4/4\nL:1/8\nK:D\n" + "|\n".join(bars) + "|]\n"


def kern(seed: int = 0) -> str:
    draw = random.Random(seed)
    lines = ["**kern", "*M4/4", "*k[f#c#]"]
    for bar in range(32):
        lines += [
            f"={bar + 1}",
            *(f"8{draw.choice(['c', 'd', 'e', 'f#', 'g', 'a', 'b', 'cc#'])}" for _ in range(8)),
        ]
    return "\n".join([*lines, "==", "*-", ""])


def parse_abc(text: str) -> Any:
    handler = music21.abcFormat.ABCHandler()
    handler.process(text)
    return music21.abcFormat.translate.abcToStreamScore(handler)


def parse_xml(content: bytes) -> Any:
    importer = MusicXMLImporter()
    importer.xmlText = content
    importer.parseXMLText()
    return importer.stream


def parse_kern(text: str) -> Any:
    collection = music21.humdrum.spineParser.HumdrumDataCollection(text)
    collection.parse()
    return collection.stream


def rate(call: Callable[[], Any], seconds: float) -> float:
    """Calls per second of CPU, the first not counted."""
    call()
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        call()
        count += 1
    return count / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    given = parser.parse_args()
    text = tune()
    xml = GeneralObjectExporter(parse_abc(text)).parse()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.xml", xml)
    file = symusic.Score(480)
    track = symusic.Track()
    track.notes.extend(symusic.Note(240 * i, 240, 60 + i % 12, 90) for i in range(256))
    file.tracks.append(track)
    midi, score = file.dumps_midi(), Score()
    cases: list[tuple[str, Callable[[], Any], str, Callable[[], Any]]] = [
        ("score, ABC", lambda: score.read(text), "music21", lambda: parse_abc(text)),
        ("score, MusicXML", lambda: score.read(xml), "music21", lambda: parse_xml(xml)),
        ("score, .mxl", lambda: score.read(packed.getvalue()), "music21", lambda: parse_xml(xml)),
        ("score, **kern", lambda: score.read(kern()), "music21", lambda: parse_kern(kern())),
        ("midi, per beat", lambda: Midi().read(midi), "symusic", lambda: symusic.Score.from_midi(midi)),
        ("midi, per message", lambda: Midi("message").read(midi), "symusic", lambda: symusic.Score.from_midi(midi)),
    ]  # fmt: skip
    print(f"{'reader':18}  {'items/s':>9}  {'library':>8}  {'items/s':>9}  {'ratio':>6}")
    for name, ours, library, bare in cases:
        fast, base = rate(ours, given.seconds), rate(bare, given.seconds)
        print(f"{name:18}  {fast:9.1f}  {library:>8}  {base:9.1f}  {fast / base:6.2f}")


if __name__ == "__main__":
    main()
