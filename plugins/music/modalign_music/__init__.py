"""Symbolic music for modalign: declarations only."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [
        Component(
            "midi",
            "modalign_music.midi:Midi",
            "Performances from MIDI files, as beats or messages in patches",
        ),
        Component(
            "score", "modalign_music.score:Score", "Scores from ABC, MusicXML and Humdrum, as bars of ABC"
        ),
    ]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component(
            "bar-transformer",
            "modalign_music.transformer:BarTransformer",
            "a small transformer over the bars of a score, trained from scratch",
        ),
        Component(
            "midi-transformer",
            "modalign_music.transformer:MidiTransformer",
            "the same over the beats or messages of a performance",
        ),
    ]
