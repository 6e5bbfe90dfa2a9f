"""Scores in files: what music21 writes is what we read, note for note."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import pytest
from modalign import BadSample, UserError
from modalign_music.engrave import engraved
from modalign_music.score import Score

from .broken_music import KERN, TUNE, XML, mxl
from .test_music_bars import _sounds

CORPUS = ["bach/bwv66.6", "bach/bwv7.7", "bach/bwv101.7"]


def _stream():
    """A melody with what notation has: tuplets, ties, rests, accidentals, grace notes, two keys."""
    from music21 import bar, chord, duration, harmony, key, meter, note, stream, tie

    part = stream.Part()
    one, two, three = (stream.Measure(number=i) for i in (1, 2, 3))
    one.append([key.Key("D"), meter.TimeSignature("3/4")])
    one.append(harmony.ChordSymbol("B-7"))
    for name in ("F#4", "F4", "F#5", "B-3", "E--4"):
        one.append(note.Note(name, quarterLength=0.5))
    held = note.Note("C##6", quarterLength=0.5)
    held.tie = tie.Tie("start")
    one.append(held)
    for name in ("G4", "A4", "B4"):
        third = note.Note(name)
        third.duration = duration.Duration("eighth")
        third.duration.appendTuplet(duration.Tuplet(3, 2, "eighth"))
        two.append(third)
    two.append(note.Note("G5", type="eighth").getGrace())
    two.append(chord.Chord(["C2", "G3", "E4"], quarterLength=1.5))
    two.append(note.Rest(quarterLength=0.5))
    three.append(key.Key("g"))
    three.append(note.Note("E-4", quarterLength=3))
    three.rightBarline = bar.Barline("final")
    for measure in (one, two, three):
        part.append(measure)
    score = stream.Score()
    score.insert(0, part)
    return score


def _musicxml(score) -> bytes:
    from music21.musicxml.m21ToXml import GeneralObjectExporter

    return GeneralObjectExporter(score).parse()


def test_musicxml_becomes_the_abc_a_person_would_write():
    assert Score().read(_musicxml(_stream())) == [
        "L:1/8",
        "M:3/4",
        "K:D",
        '"Bb7"F=F f_B, __E^^c\'-|',
        "(3GAB {g}[=C,,G,E]3 z|",
        "K:Gm",
        "E6|]",
    ]


def _of_stream(score) -> list[tuple]:
    return [
        (float(n.quarterLength), *(sorted(p.midi for p in n.pitches) if not n.isRest else ("z",)))
        for n in score.recurse().notesAndRests
        if "ChordSymbol" not in n.classes
    ]


@pytest.mark.parametrize("name", CORPUS)
def test_music21_hears_in_our_abc_what_it_wrote(name):
    from music21 import corpus

    score = corpus.parse(name)
    part = score.parts[0]
    for voice in list(part.recurse().getElementsByClass("Voice")):
        voice.activeSite.remove(voice)
    bars = Score(chords=False).read(_musicxml(part))
    want = [n for n in _of_stream(part) if n[0] > 0]
    got = [n for n in _sounds("X:1\n" + "\n".join(bars)) if n[0] > 0]
    assert len(want) > 20
    assert got == want


def test_the_key_says_which_accidentals_are_written():
    assert Score(header=False).read(_musicxml(_stream()))[0].startswith('"Bb7"F=F')


def test_an_accidental_is_written_once_in_a_bar_and_taken_back():
    from music21 import meter, note, stream

    score, part = stream.Score(), stream.Part()
    for number in (1, 2):
        measure = stream.Measure(number=number)
        if number == 1:
            measure.append(meter.TimeSignature("4/4"))
        for name in ("F#4", "F#4", "F4", "F#5"):
            measure.append(note.Note(name, type="quarter"))
        part.append(measure)
    score.insert(0, part)
    assert [bar.strip("|]") for bar in Score(header=False).read(_musicxml(score))] == ["^F2 F2 =F2 ^f2"] * 2


def test_zipped_and_plain_musicxml_agree():
    plain = Score().read(XML.encode())
    assert Score().read(mxl()) == plain == Score().read(XML)
    assert plain[:5] == ["L:1/8", "M:3/4", "K:G", '[V:1]"G"[G_B]2 z4|', "[V:2]x6|"] or plain[3].startswith(
        "[V:1]"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # without a container: the first score in it
        archive.writestr("a/score.xml", XML)
    assert Score().read(file.getvalue()) == plain


def test_humdrum_spines_are_voices():
    bars = Score().read(KERN.encode())
    assert bars[:3] == ["L:1/8", "M:3/4", "K:G"]
    assert sum("V:2" in bar for bar in bars) == 2
    assert "la" not in "".join(bars)
    assert Score().read(KERN) == bars


def test_a_file_is_read_from_its_path(tmp_path):
    for name, content in (
        ("a.abc", TUNE.encode("latin-1", "replace")),
        ("b.krn", KERN.encode()),
        ("c.mxl", mxl()),
    ):
        (tmp_path / name).write_bytes(content)
        assert Score().read(tmp_path / name) == Score().read(content)
    with pytest.raises(BadSample, match=r"(?i)no such"):
        Score().read(tmp_path / "d.abc")


def test_what_takes_long_to_read_is_refused_before():
    """A few kB of keys, over which music21 would sit for half a minute."""
    key = "*k[f#]\t*k[f#]\t*\n"
    assert key in KERN
    with pytest.raises(BadSample, match="tokens in the measures to read, more than 30000"):
        Score().read(KERN.replace(key, key * 1500).encode())
    assert Score().read(KERN.replace(key, key * 20).encode())


def test_words_in_a_file_never_come_through():
    for content in (XML, KERN, TUNE):
        assert "we" not in "".join(Score().read(content.encode()))


def test_entities_and_midi_are_refused_with_reasons():
    bomb = XML.replace(
        'PUBLIC "-//Recordare//DTD MusicXML 3.1 Partwise//EN"\n "http://www.musicxml.org/dtds/partwise.dtd"',
        '[<!ENTITY a SYSTEM "file:///etc/passwd">]',
    )
    with pytest.raises(BadSample, match="entities"):
        Score().read(bomb)
    with pytest.raises(BadSample, match="undefined entity &a;"):
        Score().read(XML.replace("<part-name>", "<part-name>&a;", 1))
    with pytest.raises(BadSample, match="read it as midi"):
        Score().read(b"MThd\0\0\0\6")
    with pytest.raises(BadSample, match="unpacks to more"):
        Score().read(mxl(b"<a>" + b" " * (32 << 20) + b"</a>"))


def test_reading_writes_and_prints_nothing(tmp_path):
    code = "import sys; from modalign_music.score import Score\nfor f in sys.argv[1:]: Score().read(f)"
    done = subprocess.run(
        [sys.executable, "-c", code, XML, KERN], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout == done.stderr == ""
    assert not list(tmp_path.rglob("*"))


def test_options_are_checked():
    for wrong in ({"max_patches": 0}, {"crop": 1.0}, {"hide": -0.1}):
        with pytest.raises(UserError):
            Score(**wrong)


def test_a_preview_is_engraved_where_verovio_is():
    pytest.importorskip("verovio")
    kind, picture = Score().preview(Score().read(TUNE))
    assert kind == "image/svg+xml"
    assert picture.count(b'class="note"') >= 10
    assert b"<script" not in picture
    assert engraved(["@@@"] * 3) is None or engraved(["@@@"] * 3)[1].startswith(b"<svg")


def test_a_preview_is_abc_without_verovio(monkeypatch):
    monkeypatch.setattr("modalign_music.engrave.importlib.util.find_spec", lambda name: None)
    assert Score().preview(["M:3/4", "c2|"]) == ("text/plain", b"M:3/4\nc2|")
