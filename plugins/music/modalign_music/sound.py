"""Notes as sound: a plain additive synthesiser, for previews and where no soundfont is."""

from __future__ import annotations

import io
import wave

import numpy as np

RATE = 16000
_OVERTONES = (1.0, 0.5, 0.3, 0.15, 0.1, 0.05)
_LONGEST = 8.0  # seconds a note is heard
_MOST = 4000  # notes played; more would only cost time


def wav(notes: np.ndarray, seconds: float, rate: int = RATE) -> bytes:
    """A WAV file, mono, 16 bits, of notes played by decaying overtones.

    Inputs:
        notes: ``(K, 4)`` onset and length in seconds, MIDI pitch (-1 = a drum), velocity to 127.
        seconds: the sound is cut after that long.
        rate: samples per second.
    """
    sound = play(notes, seconds, rate)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes((sound * 32000).astype("<i2").tobytes())
    return file.getvalue()


def play(notes: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    """Inputs as for ``wav`` -> ``(L,)`` float32 within -1 to 1, at least a tenth of a second."""
    notes = notes[notes[:, 0] < seconds][:_MOST]
    lengths = np.clip(notes[:, 1], 0.05, _LONGEST)  # (K,)
    end = min(seconds, float((notes[:, 0] + lengths).max(initial=0.0)) + 0.1)
    sound = np.zeros(max(1, int(end * rate)), dtype=np.float32)  # (L,)
    noise = np.random.default_rng(0).standard_normal(rate // 10).astype(np.float32)  # a drum's
    for (onset, _, pitch, velocity), length in zip(notes, lengths, strict=True):
        start = int(onset * rate)
        t = np.arange(min(int((length + 0.05) * rate), len(sound) - start)) / rate  # (l,)
        if pitch < 0:
            tone = np.zeros_like(t)
            tone[: len(noise)] = noise[: len(t)]
            fade = np.exp(-40 * t)
        else:
            hertz = 440.0 * 2 ** ((pitch - 69) / 12)
            heard = [(k, a) for k, a in enumerate(_OVERTONES, 1) if k * hertz < rate / 2]
            tone = sum((a * np.sin(2 * np.pi * k * hertz * t) for k, a in heard), np.zeros_like(t))
            fade = np.exp(-2 * t) * np.clip((length + 0.05 - t) / 0.05, 0, 1)
        attack = np.clip(t / 0.01, 0, 1)  # no click at the start
        sound[start : start + len(t)] += (velocity / 127 * attack * fade * tone).astype(np.float32)
    return sound / max(1.0, float(np.abs(sound).max(initial=0.0)))
