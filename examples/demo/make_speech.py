"""Speaks the digits with espeak-ng; its output is kept in speech/, so nobody needs to run this.

python examples/demo/make_speech.py        # needs espeak-ng: apt-get install espeak-ng

One file per voice and accent, speech/<accent>/<voice>.ogg, 8 kHz mono: the digit d within second d.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from digits import ACCENTS, NAMES, VOICES
from scipy.signal import resample_poly

RATE = 8000
LEAD = 800  # samples of silence before each word
HERE = Path(__file__).parent


def say(word: str, accent: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """One word at 8 kHz, silence cut off, at most 0.85 s, peak 0.6."""
    command = ["espeak-ng", "-v", f"{accent}+{voice}", "-p", str(pitch), "-s", str(speed), "--stdout", word]
    content = subprocess.run(command, check=True, capture_output=True).stdout
    wave, rate = soundfile.read(io.BytesIO(content))
    wave = resample_poly(wave, RATE, rate)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + 1][: int(0.85 * RATE)]
    return 0.6 * wave / np.abs(wave).max()


def main() -> None:
    voices = [voice for split in VOICES.values() for voice in split]
    for i, accent in enumerate(ACCENTS):
        for j, voice in enumerate(voices):
            pitch, speed = 35 + (7 * i + 11 * j) % 31, 130 + (13 * i + 17 * j) % 51  # of 0-99; words a minute
            track = np.zeros(10 * RATE)
            for digit, word in enumerate(NAMES[ACCENTS[accent]].split()):
                wave = say(word, accent, voice, pitch, speed)
                start = digit * RATE + LEAD
                track[start : start + len(wave)] = wave
            path = HERE / "speech" / accent / f"{voice}.ogg"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, track, RATE, format="OGG", subtype="VORBIS", compression_level=0.8)


if __name__ == "__main__":
    main()
