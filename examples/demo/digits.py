"""The demo's digit names and voices: what is spoken, by whom, and in which split."""

from __future__ import annotations

NAMES = {
    "en": "zero one two three four five six seven eight nine",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "pt": "zero um dois três quatro cinco seis sete oito nove",
    "nl": "nul een twee drie vier vijf zes zeven acht negen",
}
"""Language -> the digits' names, 0 to 9."""

ACCENTS = {
    "en-us": "en", "en-gb": "en", "de": "de", "fr-fr": "fr", "es": "es",
    "it": "it", "pt-br": "pt", "nl": "nl",
}  # fmt: skip
"""espeak-ng language -> language of the names."""

VOICES = {
    "train": ["f1", "f3", "f4", "f5", "m1", "m2", "m5", "m7"],
    "val": ["m6"],
    "test": ["f2", "m3", "m4"],
}
"""Split -> espeak-ng voice variants: a voice heard in training is in no other split."""


def names(digit: int) -> list[str]:
    """The digit's distinct names, English first."""
    return list(dict.fromkeys(words.split()[digit] for words in NAMES.values()))
