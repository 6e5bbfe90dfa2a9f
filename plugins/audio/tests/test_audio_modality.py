"""The audio modality: real files of every kind, damaged files, collating and augmenting."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import wave as stdlib_wave

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample, UserError
from modalign_audio.modality import Audio
from scipy.signal import resample_poly

torch.set_num_threads(1)

FORMATS = [
    ("WAV", "PCM_U8", 0.02), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-5), ("WAV", "FLOAT", 1e-6),
    ("WAV", "DOUBLE", 1e-6), ("WAV", "ULAW", 0.05), ("FLAC", "PCM_16", 1e-4), ("FLAC", "PCM_24", 1e-5),
    ("AIFF", "PCM_16", 1e-4), ("CAF", "PCM_16", 1e-4), ("OGG", "VORBIS", 0.1), ("MP3", "MPEG_LAYER_III", 0.1),
]  # fmt: skip


def _tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def _file(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "subtype", "error"), FORMATS)
def test_reads_what_was_written(kind, subtype, error):
    tone = _tone(16000, 0.5)
    got = Audio(16000).read(_file(tone, 16000, kind, subtype))
    assert got.dtype == torch.float32
    if kind == "MP3":  # its encoder may add a few frames of silence at the ends
        assert 8000 <= len(got) <= 8000 + 3 * 1152
        assert abs(float(got.square().sum()) - float((tone**2).sum())) < 0.05 * float((tone**2).sum())
    else:
        assert len(got) == 8000
        assert np.abs(got.numpy() - tone).max() < error


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_resamples_and_mixes_down(rate, channels):
    gains = np.linspace(0.2, 1.0, channels)
    samples = _tone(rate, 0.5)[:, None] * gains
    got = Audio(16000).read(_file(samples, rate, subtype="FLOAT")).numpy()
    want = _tone(16000, 0.5) * gains.mean()
    assert len(got) == len(want)
    assert np.abs(got - want)[300:-300].max() < 5e-3


def test_resampling_agrees_with_scipy():
    rng = np.random.default_rng(0)
    smooth = resample_poly(rng.standard_normal(500), 40, 1)  # 20000 samples at 44100, no high frequencies
    smooth = 0.5 * smooth / np.abs(smooth).max()
    got = Audio(8000).read(_file(smooth, 44100, subtype="FLOAT")).numpy()
    assert np.abs(got - resample_poly(smooth, 80, 441))[100:-100].max() < 5e-3


def test_low_pass_removes_what_the_new_rate_cannot_hold():
    got = Audio(8000).read(_file(_tone(44100, 0.5, hertz=9000.0), 44100))
    assert got[100:-100].abs().max() < 0.01


@pytest.mark.parametrize("rate", [1000, 7919, 44101, 96000, 192000, 767999])
def test_odd_rates_cost_little(rate):
    got = Audio(16000).read(_file(_tone(rate, 0.5, hertz=100.0), rate, subtype="FLOAT")).numpy()
    assert abs(len(got) - 8000) <= 8
    middle = slice(2000, 6000)
    assert np.corrcoef(got[middle], _tone(16000, 0.5, hertz=100.0)[middle])[0, 1] > 0.99


@pytest.mark.parametrize("length", [1, 2, 3, 159, 160, 161])
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_keeps_the_shortest_clips(length, rate):
    assert len(Audio(16000).read(_file(np.full(length, 0.5), rate))) == -(-length * 16000 // rate)


def test_cuts_long_clips():
    tone = _tone(16000, 3.0)
    got = Audio(16000, max_seconds=1.25).read(_file(tone, 16000, subtype="FLOAT")).numpy()
    assert np.allclose(got, tone[:20000], atol=1e-6)


def test_reads_paths_and_bytes_alike(tmp_path):
    content = _file(_tone(16000, 0.1), 16000)
    (tmp_path / "a.wav").write_bytes(content)
    assert torch.equal(Audio().read(tmp_path / "a.wav"), Audio().read(content))
    with pytest.raises(BadSample, match=r"b\.wav"):
        Audio().read(tmp_path / "b.wav")


def _silent_header(declared: int) -> bytes:
    """A WAV file of two samples whose header declares more bytes of them."""
    body = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", declared, b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    return body + struct.pack("<4sI2h", b"data", declared, 1000, -1000)


def test_a_lying_header_costs_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(Audio(16000, max_seconds=1e5).read(_silent_header(0x7FFFFFF0))) == 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # kilobytes; the header claims 2 gigabytes


def test_a_small_file_that_unpacks_to_hours_is_cut_while_reading():
    bomb = _file(np.zeros(48000 * 600, dtype="int16"), 48000, "FLAC")
    assert len(bomb) < 200_000
    assert len(Audio(16000, max_seconds=2).read(bomb)) == 32000


def _python_wave() -> bytes:
    buffer = io.BytesIO()
    with stdlib_wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 100, b"RIFF", b"not sound at all", _python_wave(),
        _file(np.array([0.0, np.nan]), 16000, subtype="FLOAT"),
        _file(np.array([np.inf]), 16000, subtype="FLOAT"),
        _file(np.full(100, 3e38), 8000, subtype="FLOAT"), 12, None, "", [0.0, 1.0],
    ],
    ids=lambda value: type(value).__name__,  # libsndfile writes the time into the bytes
)  # fmt: skip
def test_refuses_what_is_no_sound(content):
    with pytest.raises(BadSample) as caught:
        Audio().read(content)
    assert str(caught.value)


_WHOLE = [
    _file(_tone(8000, 0.05), 8000, kind, subtype)
    for kind, subtype in [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *(w[:48] for w in _WHOLE)]))
def test_random_bytes_are_sound_or_a_bad_sample(tail, head):
    _sound_or_bad(head + tail)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_sound_or_a_bad_sample(data):
    whole = bytearray(data.draw(st.sampled_from(_WHOLE)))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    _sound_or_bad(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def _sound_or_bad(content: bytes) -> None:
    try:
        wave = Audio(8000, max_seconds=2).read(content)
    except BadSample:
        return
    assert wave.ndim == 1
    assert 1 <= len(wave) <= 16000
    assert wave.dtype == torch.float32
    assert torch.isfinite(wave).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_collate_marks_padding(lengths):
    items = [torch.arange(1.0, n + 1) for n in lengths]
    batch = Audio().collate(items)
    assert batch["wave"].shape == batch["mask"].shape == (len(lengths), max(lengths))
    for item, wave, mask in zip(items, batch["wave"], batch["mask"], strict=True):
        assert torch.equal(wave[mask], item)
        assert mask[: len(item)].all()
        assert not wave[~mask].any()


@given(st.integers(0, 2**32), st.lists(st.integers(1, 4000), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_augment_changes_sound_within_bounds(seed, lengths):
    audio = Audio(8000)
    batch = audio.collate([0.1 * torch.sin(torch.arange(n) * 0.2 + 1) for n in lengths])
    copy = {k: v.clone() for k, v in batch.items()}
    torch.manual_seed(0)
    one = audio.augment(batch, torch.Generator().manual_seed(seed))
    torch.manual_seed(1)
    two = audio.augment(batch, torch.Generator().manual_seed(seed))
    for key in batch:
        assert torch.equal(one[key], two[key])  # drawn from the generator alone
        assert torch.equal(batch[key], copy[key])
        assert one[key].shape == batch[key].shape
        assert one[key].dtype == batch[key].dtype
    assert torch.isfinite(one["wave"]).all()
    assert not one["wave"][~one["mask"]].any()
    assert one["mask"].any(1).all()
    counts, before = one["mask"].sum(1), batch["mask"].sum(1)
    assert (counts >= 0.75 * before - 2).all()
    assert (counts <= 1.25 * before + 2).all()
    assert one["wave"].abs().max() < 0.1 * 2.5


def test_augment_varies_between_rows_and_draws():
    audio = Audio(8000)
    batch = audio.collate([torch.sin(torch.arange(4000) * 0.2)] * 2)
    generator = torch.Generator().manual_seed(0)
    one, two = audio.augment(batch, generator), audio.augment(batch, generator)
    assert not torch.allclose(one["wave"][0], one["wave"][1], atol=1e-3)
    assert not torch.allclose(one["wave"], two["wave"], atol=1e-3)


def test_examples_are_varied_and_repeatable():
    audio = Audio(8000)
    one, two = audio.example(6, seed=3), audio.example(6, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({len(x) for x in one}) > 3
    assert all(0.05 < x.abs().max() < 3 for x in one)
    assert len(Audio(8000, max_seconds=0.1).example(1)[0]) == 800


def test_constructor_refuses_nonsense_and_pickles():
    for wrong in ({"rate": 0}, {"rate": 10**9}, {"max_seconds": 0}, {"max_seconds": float("inf")}):
        with pytest.raises(UserError):
            Audio(**wrong)
    with pytest.raises(UserError):
        Audio(max_seconds=float("nan"))
    again = pickle.loads(pickle.dumps(Audio(8000, 2.0)))
    assert (again.rate, again.max_seconds) == (8000, 2.0)


def test_a_preview_is_the_sound_that_encoders_hear():
    audio = Audio(rate=8000)
    for item in audio.example(3):
        kind, content = audio.preview(item)
        assert kind == "audio/wav"
        torch.testing.assert_close(audio.read(content), item / max(1, item.abs().max()), rtol=0, atol=1e-4)
    quiet = torch.linspace(-0.1, 0.1, 100)
    torch.testing.assert_close(audio.read(audio.preview(quiet)[1]), quiet, rtol=0, atol=1e-4)
    loud = torch.tensor([0.5, -4.0, 2.0])
    torch.testing.assert_close(audio.read(audio.preview(loud)[1]), loud / 4, rtol=0, atol=1e-4)
