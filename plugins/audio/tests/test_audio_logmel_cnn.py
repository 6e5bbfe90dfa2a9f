"""logmel-cnn: independence of rows, invariances, frames against torchaudio, and that it learns."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign_audio.logmel_cnn import LogMelCNN
from modalign_audio.modality import Audio
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

torch.set_num_threads(1)


def _encoder(**options):
    torch.manual_seed(0)
    return LogMelCNN(**{"width": 16, "rate": 8000, "channels": (4, 8, 8), "mels": 32, **options}).eval()


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=40), st.integers(0, 5000), st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_rows_are_independent(lengths, extra, seed):
    encoder, audio = _encoder(), Audio(8000)
    generator = torch.Generator().manual_seed(seed)
    clips = [0.2 * torch.randn(n, generator=generator) for n in lengths]
    batch = audio.collate(clips)
    padded = {"wave": F.pad(batch["wave"], (0, extra), value=7.0), "mask": F.pad(batch["mask"], (0, extra))}
    with torch.no_grad():
        together = encoder(padded)
        for i in {0, len(clips) // 2, len(clips) - 1}:
            alone = encoder(audio.collate([clips[i]]))
            assert alone.mask.all()
            assert together.mask[i].sum() == alone.mask.sum()
            assert torch.allclose(together.tokens[i][together.mask[i]], alone.tokens[0], atol=1e-5)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.5, 2.0])
def test_gives_25_tokens_a_second(seconds):
    clip = torch.randn(max(1, round(8000 * seconds)))
    features = _encoder()(Audio(8000).collate([clip]))
    assert features.tokens.shape == (1, features.mask.shape[1], 16)
    assert abs(features.mask.sum() - 25 * seconds) <= 1


def test_loudness_does_not_matter_and_silence_is_finite():
    encoder, audio = _encoder(), Audio(8000)
    clip = torch.randn(4000) * torch.linspace(0, 0.1, 4000)
    with torch.no_grad():
        loud, quiet = (encoder(audio.collate([gain * clip])).tokens for gain in (1.0, 0.01))
        assert torch.allclose(loud, quiet, atol=1e-4)
        assert torch.isfinite(encoder(audio.collate([torch.zeros(4000)])).tokens).all()


def test_frames_follow_the_formula():
    encoder = _encoder()
    wave = torch.randn(1, 4000)
    got, mask = encoder.frames(wave, torch.tensor([4000]))
    mel = MelSpectrogram(
        8000, n_fft=256, win_length=200, hop_length=80, n_mels=32, f_min=40.0, pad_mode="constant",
        mel_scale="slaney", norm="slaney",
    )  # fmt: skip
    power = mel(wave)
    want = torch.log(power / power.mean() + 1e-3)
    want = want - want.mean(2, keepdim=True)
    assert mask.all()
    assert torch.allclose(got, want / (want.square().mean() + 0.01).sqrt(), atol=1e-4)


def test_blanks_only_in_training_and_within_its_share():
    from modalign_audio.logmel_cnn import _blanked

    x, mask = torch.ones(50, 32, 100), torch.arange(100).expand(50, 100) < 60
    torch.manual_seed(0)
    kept = _blanked(x, mask, 0.2)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    bands, steps = (kept.amax(2) == 0).sum(1), (kept.amax(1) == 0).sum(1)
    assert 0 < bands.max() <= 2 * 7
    assert 0 < steps.max() <= 13
    assert (kept.amax(1)[:, 60:] == 1).all()
    encoder = _encoder(dropout=0.0)
    batch = Audio(8000).collate(Audio(8000).example(3))
    assert torch.equal(encoder(batch).tokens, encoder(batch).tokens)
    encoder.train()
    assert not torch.equal(encoder(batch).tokens, encoder(batch).tokens)


def test_gradient_reaches_every_parameter():
    encoder = _encoder().train()
    features = encoder(Audio(8000).collate(Audio(8000).example(8)))
    (features.tokens * torch.randn_like(features.tokens)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())


def test_learns_to_tell_rising_from_falling_tones():
    """Both have the same mean spectrum: only what happens along time tells them apart."""
    torch.manual_seed(0)
    encoder, audio = LogMelCNN(width=32, rate=8000, channels=(8, 8, 16), mels=32).train(), Audio(8000)
    head = torch.nn.Linear(32, 2)

    def draw(n, generator):
        clips, labels = [], torch.randint(2, (n,), generator=generator)
        for label in labels.tolist():
            low, span, seconds = (torch.rand(3, generator=generator) * torch.tensor([400, 800, 0.3])).tolist()
            t = torch.arange(int(8000 * (0.2 + seconds))) / 8000
            clip = torch.sin(6.2832 * ((300 + low) * t + (400 + span) * t**2 / (2 * t[-1])))
            clips.append(clip.flip(0) if label else clip)
        return audio.collate(clips), labels

    def logits(batch):
        features = encoder(batch)
        return head(features.tokens.sum(1) / features.mask.sum(1, keepdim=True))

    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(25):
        batch, labels = draw(32, generator)
        optimiser.zero_grad()
        F.cross_entropy(logits(batch), labels).backward()
        optimiser.step()
    encoder.eval()
    with torch.no_grad():
        batch, labels = draw(200, torch.Generator().manual_seed(1))
        assert (logits(batch).argmax(1) == labels).float().mean() > 0.95


def test_asks_for_its_rate_and_refuses_nonsense():
    assert LogMelCNN(rate=8000).modality_options() == {"rate": 8000}
    for wrong in ({"mels": 20}, {"mels": 0}, {"channels": (8, 8)}):
        with pytest.raises(UserError):
            LogMelCNN(**wrong)


def test_declarations_import_nothing_heavy():
    code = (
        "import sys, modalign_audio as m; m.register_modalities(); m.register_encoders();"
        "print(sorted({'torch', 'torchaudio', 'transformers', 'soundfile', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
