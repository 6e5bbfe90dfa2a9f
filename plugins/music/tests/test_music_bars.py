"""ABC as bars: what is kept, what is dropped, and that no note is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample
from modalign_music.bars import bars_of_abc

TUNE = """%abc-2.1
% a comment
X:1
T:Name of the Tune
C:Somebody
M:6/8
L:1/8
K:Em
|:"Em"B2A G2E|"B7"^F=GF "Em"E3:|\\
[1 {c}G2"^slow"G !trill!G2D|[M:3/4][K:G] G2 A2 d|
w: words that are sung
d2 c2:|
X:2
T:Another
K:C
c4|]
"""


def test_bars_keep_music_and_drop_words():
    assert bars_of_abc(TUNE) == [
        "M:6/8",
        "L:1/8",
        "K:Em",
        '|:"Em"B2A G2E|',
        '"B7"^F=GF "Em"E3:|',
        "[1 {c}G2G !trill!G2D|",
        "[M:3/4][K:G] G2 A2 d|",
        "d2 c2:|",
    ]


def test_without_header_nothing_tells_metre_or_key():
    bars = bars_of_abc(TUNE, header=False)
    assert len(bars) == 5
    assert not any(":" in bar.strip(":|") or "/" in bar for bar in bars)


def test_without_chords_no_symbol_is_left():
    assert '"' not in "".join(bars_of_abc(TUNE, chords=False))


def test_a_body_alone_is_a_tune():
    assert bars_of_abc("d:|\nc2|]") == ["d:|", "c2|]"]
    assert bars_of_abc("cdef") == ["cdef"]


def test_voices_keep_their_number_and_not_their_name():
    text = "X:1\nL:1/8\nK:C\nV:1 name=Anna\nc4|\nV:2\n[V:2 clef=bass]C4|\n"
    assert bars_of_abc(text) == ["L:1/8", "K:C", "V:1", "c4|", "V:2", "[V:2]C4|"]


def test_the_limit_counts_bars():
    assert len(bars_of_abc("c|" * 100, limit=7)) == 7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "%%begintext\ncdefg\n%%endtext",
        "T:only a title\nK:C",
        "The quick brown fox",
        "♯c|",
        "|||",
    ],
)
def test_what_is_no_tune_is_refused(text):
    with pytest.raises(BadSample):
        bars_of_abc(text)


_PIECES = st.sampled_from(
    [
        "c",
        "^F,",
        "d'2",
        "z",
        "[CEG]2",
        '"Am"',
        "(3abc",
        "{g}a",
        " ",
        "|",
        "||",
        ":|",
        "|:",
        "::",
        "\n",
        "[1",
        "e/2",
        "-",
    ]
)


@given(st.lists(_PIECES, min_size=1, max_size=60).map("".join))
@settings(max_examples=150, deadline=None)
def test_bars_are_the_text_cut_in_pieces(text):
    try:
        bars = bars_of_abc(text)
    except BadSample:
        return
    notes = [c for c in text if not c.isspace() and c not in ":|[]"]
    assert [c for c in "".join(bars) if not c.isspace() and c not in ":|[]"] == notes
    again = bars_of_abc("\n".join(bars))
    assert [c for c in "".join(again) if c not in " :|"] == [c for c in "".join(bars) if c not in " :|"]
    assert all(bar == bar.strip() and bar for bar in bars)


def _sounds(text: str) -> list[tuple]:
    from music21.abcFormat import ABCHandler, translate

    handler = ABCHandler()
    handler.process("%%propagate-accidentals octave\n" + text)  # not its default
    score = translate.abcToStreamScore(handler)
    return [
        (float(n.quarterLength), *(sorted(p.midi for p in n.pitches) if not n.isRest else ("z",)))
        for n in score.recurse().notesAndRests
        if "ChordSymbol" not in n.classes
    ]


def test_music21_hears_the_same_notes_in_the_bars():
    one = TUNE[: TUNE.index("X:2")].replace('"^slow"', "")
    assert _sounds("X:1\n" + "\n".join(bars_of_abc(TUNE))) == _sounds(one)
    assert len(_sounds(one)) == 18
