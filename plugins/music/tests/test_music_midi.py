"""Performances: MIDI files that symusic and music21 write, as text, notes and sound."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import symusic
from modalign import BadSample, UserError
from modalign_music.midi import Midi
from modalign_music.sound import play

from .broken_music import midi


def _file(notes, tpq=480, **more) -> bytes:
    """Notes ``(time, length, pitch, velocity)`` in quarter notes as a MIDI file."""
    score = symusic.Score(tpq)
    for name, events in more.items():
        getattr(score, name).extend(events)
    track = symusic.Track(program=0)
    for time, length, pitch, velocity in notes:
        track.notes.append(symusic.Note(round(time * tpq), round(length * tpq), pitch, velocity))
    score.tracks.append(track)
    return score.dumps_midi()


TUNE = [
    (0, 0.5, 60, 90),
    (0.5, 0.5, 62, 80),
    (1, 1 / 3, 66, 70),
    (4 / 3, 1 / 3, 67, 70),
    (5, 2, 48, 60),
    (5, 2, 55, 60),
]
METRE = [symusic.TimeSignature(0, 3, 4)]
KEY = [symusic.KeySignature(0, -1, 1)]
TEMPO = [symusic.Tempo(time=0, qpm=240), symusic.Tempo(time=960, qpm=60)]


def test_each_beat_is_a_patch():
    content = _file(TUNE, time_signatures=METRE, key_signatures=KEY, tempos=TEMPO[:1])
    body = ["0C4:6 6D4:6", "0F#4:4 4G4:4", "z3", "0C3:24 0G3:24"]
    assert Midi().read(content).patches == ["K:Dm", "M:3/4", "Q:240", *body]
    assert Midi(header=False).read(content).patches == body
    assert Midi(header=False, max_patches=2).read(content).patches == body[:2]


def test_times_are_rounded_to_a_twelfth_of_a_quarter():
    late, early = (7 / 12 + d for d in (0.03, -0.03))
    for at in (late, early):
        assert Midi(header=False).read(_file([(at, 0.24, 60, 90)])).patches == ["7C4:3"]


def test_each_message_is_a_patch():
    lines = Midi(per="message", header=False).read(_file(TUNE)).patches
    assert lines[:4] == ["program 0 0 0", "note_on 0 0 60 90", "note_off 6 0 60", "note_on 0 0 62 80"]
    assert sum(line.startswith("note_on") for line in lines) == len(TUNE)
    assert sum(int(line.split()[1]) for line in lines) == 7 * 12  # from the beginning to the end


def test_programs_and_drums_are_told_apart():
    score = symusic.Score(480)
    for program, drum, pitch in ((40, False, 60), (0, True, 38)):
        track = symusic.Track(program=program, is_drum=drum)
        track.notes.append(symusic.Note(0, 480, pitch, 100))
        score.tracks.append(track)
    item = Midi().read(score.dumps_midi())
    assert "0*38:12 @40 0C4:12" in item.patches
    assert sorted(item.notes[:, 2]) == [-1, 60]


def test_notes_are_in_seconds_and_hear_every_tempo():
    notes = Midi().read(_file(TUNE, tempos=TEMPO)).notes
    assert np.allclose(notes[:, 0], [0, 0.125, 0.25, 1 / 3, 0.5 + 3, 0.5 + 3], atol=2e-3)
    assert np.allclose(notes[-1], [3.5, 2, 55, 60], atol=2e-3)


@pytest.mark.parametrize("name", ["bach/bwv66.6"])
def test_agrees_with_music21(name, tmp_path):
    from music21 import corpus

    score = corpus.parse(name)
    path = tmp_path / "a.mid"
    score.write("midi", path)
    want = sorted(
        (float(n.getOffsetInHierarchy(score)), p.midi)
        for n in score.recurse().notes
        if n.tie is None or n.tie.type == "start"
        for p in n.pitches
    )
    item = Midi(header=False).read(path)
    beats = [(place, word) for place, line in enumerate(_unpacked(item.patches)) for word in line]
    got = sorted((b + at / 12, pitch) for b, (at, pitch) in beats)
    assert [p for _, p in got] == [p for _, p in want]
    assert np.allclose([t for t, _ in got], [t for t, _ in want], atol=0.1)


def _unpacked(lines):
    """Beats as lists of onset and MIDI pitch."""
    import re

    from music21.pitch import Pitch

    for line in lines:
        if line.startswith("z"):
            yield from ([] for _ in range(int(line[1:])))
        else:
            found = re.findall(r"(\d+)([A-G]#?-?\d+):", line)
            yield [(int(at), Pitch(name).midi) for at, name in found]


def test_running_status_and_foreign_words_are_read():
    item = Midi().read(midi())
    assert item.patches[:3] == ["K:G", "M:6/8", "Q:120"]
    assert item.notes.shape == (4, 4)
    assert "we" not in "".join(item.patches)


def test_a_preview_is_sound_of_the_right_pitch():
    kind, content = Midi().preview(Midi().read(_file([(0, 2, 69, 100)])))
    assert kind == "audio/wav"
    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert 0.1 < np.abs(sound).max() <= 1
    assert abs(np.argmax(np.abs(np.fft.rfft(sound))) * rate / len(sound) - 440) < 3


def test_sound_is_bounded_whatever_the_notes():
    rng = np.random.default_rng(0)
    notes = np.stack([rng.uniform(0, 1e6, 1500), rng.uniform(0, 1e6, 1500), rng.integers(-1, 128, 1500),
                      rng.integers(0, 128, 1500)], 1)  # fmt: skip
    notes[:700, 0] = 0
    sound = play(notes, seconds=1.0)
    assert len(sound) == 16000
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1
    assert len(play(np.zeros((0, 4)), 1.0)) > 0


def test_wrong_options_and_files_are_refused():
    for wrong in ({"per": "bar"}, {"max_patches": 0}, {"crop": -1}):
        with pytest.raises(UserError):
            Midi(**wrong)
    for content, reason in (
        (b"X:1\nK:C\nc|", "not a MIDI"),
        (_file([]), "no notes"),
        (b"MThd" + bytes(9), "not"),
    ):
        with pytest.raises(BadSample, match=reason):
            Midi().read(content)
