"""The audio modality: sound files in, padded mono waveforms out."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from modalign import BadSample, Modality, UserError, file_bytes
from modalign.contracts import Batch
from torch import Generator, Tensor
from torchaudio.functional import resample

_BLOCK = 1 << 18  # samples decoded at a time, all channels together
_RATES = (1000, 768_000)  # Hz: what is taken for sound


class Audio(Modality):
    """Speech and sound: any format libsndfile decodes (WAV, FLAC, Ogg, MP3, AIFF …), as mono waveforms.

    Inputs:
        rate: samples per second every clip is resampled to.
        max_seconds: clips are cut after that long.

    Raises:
        UserError: if rate or max_seconds is not positive.
    """

    name: ClassVar[str] = "audio"

    def __init__(self, rate: int = 16000, max_seconds: float = 30.0) -> None:
        if not _RATES[0] <= rate <= _RATES[1]:
            raise UserError(
                f"audio: rate is {rate}; use {_RATES[0]} to {_RATES[1]} (Hz), usually 8000 or 16000"
            )
        if not max_seconds * rate >= 1 or math.isinf(max_seconds):
            raise UserError(f"audio: max_seconds is {max_seconds}; use a positive number such as 30")
        self.rate = int(rate)
        self.max_seconds = float(max_seconds)

    def read(self, value: Any) -> Tensor:
        """A sound file -> ``(L,)`` float32 at ``rate``, the mean over its channels.

        Raises:
            BadSample: if it is no sound file, holds no sample, or one that is not finite.
        """
        samples, rate = _decode(file_bytes(value), self.max_seconds)
        wave = _resample(torch.from_numpy(samples), rate, self.rate)  # (L,)
        wave = wave[: int(self.max_seconds * self.rate)].contiguous()
        if not torch.isfinite(wave).all():
            raise BadSample("holds samples that are not finite")
        return wave

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """Waveforms -> ``wave (N, L)``, zeros after the end, and ``mask (N, L)``, True where real."""
        lengths = torch.tensor([len(item) for item in items])
        wave = torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True)  # (N, L)
        return {"wave": wave, "mask": torch.arange(wave.shape[1]) < lengths[:, None]}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """Tones, chirps and noises of 0.2 to 1 second."""
        generator = torch.Generator().manual_seed(seed)
        items = []
        for i in range(n):
            u = torch.rand(4, generator=generator).tolist()
            seconds = min(0.2 + 0.8 * u[0], self.max_seconds)
            length = max(1, int(seconds * self.rate))
            t = torch.arange(length) / self.rate
            start, end = (self.rate * (0.01 + 0.2 * x) for x in u[1:3])
            sweep = end - start if i % 3 == 1 else 0.0
            wave = torch.sin(2 * math.pi * (start * t + sweep * t**2 / (2 * seconds)))
            if i % 3 == 2:
                wave = torch.randn(length, generator=generator) * 0.3
            items.append(wave * (0.2 + 0.6 * u[3]))
        return items

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Speed within 10 %, shift within 50 ms, gain within 6 dB, noise 20 to 50 dB below the sound."""
        wave, mask = batch["wave"], batch["mask"]
        n, width = wave.shape
        u = torch.rand(4, n, 1, generator=generator, device=generator.device).to(wave)
        noise = torch.randn(n, width, generator=generator, device=generator.device).to(wave)  # (N, L)

        lengths = mask.sum(1, keepdim=True)  # (N, 1)
        speed = 0.9 + 0.2 * u[0]  # (N, 1)
        reach = torch.clamp(lengths / 10, max=0.05 * self.rate)
        start = (2 * u[1] - 1) * reach  # (N, 1): where in the old wave the new one begins
        at = start + speed * torch.arange(width, device=wave.device)  # (N, L)
        left = at.floor().long()
        part = at - left
        out = _take(wave, mask, left) * (1 - part) + _take(wave, mask, left + 1) * part  # (N, L)
        mask = at <= (lengths - 1)
        mask[:, 0] = True  # a clip of one sample stays one

        gain = 10 ** ((12 * u[2] - 6) / 20)
        level = (out.square().sum(1, keepdim=True) / mask.sum(1, keepdim=True)).sqrt()  # (N, 1)
        out = gain * (out + noise * level * 10 ** (-(20 + 30 * u[3]) / 20))
        return {**batch, "wave": out * mask, "mask": mask}

    def preview(self, item: Tensor) -> tuple[str, bytes]:
        """The clip as encoders hear it: a WAV of 16 bits; what is louder than full scale is turned down."""
        loudest = max(1.0, float(item.abs().max()))
        file = io.BytesIO()
        soundfile.write(file, (item / loudest).numpy(), self.rate, format="WAV", subtype="PCM_16")
        return "audio/wav", file.getvalue()


def _decode(content: bytes, seconds: float) -> tuple[np.ndarray, int]:
    """The first ``seconds`` of a file, block by block: a header that lies costs no memory."""
    blocks = []
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, channels = file.samplerate, file.channels
            if not _RATES[0] <= rate <= _RATES[1]:
                raise BadSample(f"its header claims {rate} samples per second")
            left = math.ceil(seconds * rate)
            while left > 0:
                block = file.read(min(left, max(1, _BLOCK // channels)), dtype="float32", always_2d=True)
                if not len(block):
                    break
                blocks.append(block.mean(axis=1))
                left -= len(block)
    except BadSample:
        raise
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError) as error:
        reason = getattr(error, "error_string", error)  # libsndfile's own, without the address of the bytes
        raise BadSample(f"not a readable sound file: {reason}") from None
    if not blocks:
        raise BadSample("holds no sound")
    return np.concatenate(blocks), rate


def _resample(wave: Tensor, old: int, new: int) -> Tensor:
    """``(L,)`` at ``old`` Hz -> ``(L,)`` at ``new`` Hz, the ratio rounded to terms up to 1000.

    The filter bank has about old x new taps once the common factor is gone: for an odd rate such as
    44101 Hz that is gigabytes. Rounding moves the pitch by less than a thousandth, usually far less.
    """
    ratio = Fraction(min(old, new), max(old, new)).limit_denominator(1000)
    small, large = ratio.numerator, ratio.denominator
    if ratio == 1:
        return wave
    return resample(wave, large, small) if old > new else resample(wave, small, large)


def _take(wave: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """``wave (N, L)`` at ``index (N, L)``; zero outside its real part."""
    inside = (index >= 0) & (index < wave.shape[1])
    index = index.clamp(0, wave.shape[1] - 1)
    return wave.gather(1, index) * (inside & mask.gather(1, index))
