"""hf-audio: tiny random models of every family, against the official pipeline and row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from modalign import UserError
from modalign.testing.encoder import CHECKS
from modalign_audio.hf_audio import HFAudio
from modalign_audio.modality import Audio

torch.set_num_threads(1)

_CONVS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 2),
    "mask_time_prob": 0.5,
}
_BODY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_WAVE = {**_CONVS, **_BODY, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


def _waves(config, model, normalize):
    return lambda: (model(config), hf.Wav2Vec2FeatureExtractor(do_normalize=normalize))


def _whisper():
    config = hf.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=50, vocab_size=64, num_mel_bins=40,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return hf.WhisperModel(config), hf.WhisperFeatureExtractor(feature_size=40, chunk_length=1)


def _ast():
    config = hf.ASTConfig(
        **_BODY, num_mel_bins=32, max_length=100, patch_size=8, frequency_stride=6, time_stride=6
    )
    return hf.ASTModel(config), hf.ASTFeatureExtractor(num_mel_bins=32, max_length=100, mean=-3.0, std=2.0)


def _clap(fusion, padding="repeatpad"):
    def build():
        audio = {
            "window_size": 4, "num_mel_bins": 16, "spec_size": 64, "hidden_size": 32,
            "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
            "enable_fusion": fusion, "num_hidden_layers": 2, "aff_block_r": 2,
        }  # fmt: skip
        text = {"vocab_size": 32, **_BODY, "max_position_embeddings": 16}
        config = hf.ClapConfig(audio_config=audio, text_config=text, projection_dim=8)
        extractor = hf.ClapFeatureExtractor(
            feature_size=16, sampling_rate=16000, max_length_s=1, hop_length=160, fft_window_size=512,
            frequency_max=8000, truncation="fusion" if fusion else "rand_trunc", padding=padding,
        )  # fmt: skip
        model = hf.ClapModel(config)
        torch.nn.init.normal_(model.audio_model.audio_encoder.batch_norm.running_mean)
        return model, extractor

    return build


FAMILIES = {
    "wav2vec2-group": _waves(hf.Wav2Vec2Config(**_WAVE), hf.Wav2Vec2Model, False),
    "wav2vec2-layer": _waves(
        hf.Wav2Vec2Config(**_WAVE, feat_extract_norm="layer", do_stable_layer_norm=True),
        hf.Wav2Vec2Model,
        True,
    ),
    "hubert": _waves(hf.HubertConfig(**_WAVE), hf.HubertModel, True),
    "wavlm": _waves(hf.WavLMConfig(**_WAVE), hf.WavLMModel, False),
    "whisper": _whisper,
    "ast": _ast,
    "clap": _clap(False),
    "clap-pad": _clap(False, "pad"),
    "clap-fusion": _clap(True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder per family, as save_pretrained() leaves it."""
    made = {}
    for name, build in FAMILIES.items():
        torch.manual_seed(0)
        model, extractor = build()
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
        extractor.save_pretrained(made[name])
    return made


def _batch(seconds, rate=16000, seed=0):
    """A batch of noisy tones of those lengths."""
    rng = np.random.default_rng(seed)
    clips = []
    for s in seconds:
        t = np.arange(max(1, int(s * rate))) / rate
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 2000) * t) + 0.05 * rng.standard_normal(len(t))
        clips.append(torch.tensor(tone, dtype=torch.float32))
    return clips, Audio(rate).collate(clips)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_independent(folders, name):
    encoder = HFAudio(str(folders[name])).eval()
    clips, batch = _batch([0.3, 1.7, 0.3, 0.61, 0, 0.02])
    with torch.no_grad():
        together = encoder(batch)
        for i, clip in enumerate(clips):
            alone = encoder(Audio(16000).collate([clip]))
            n = alone.tokens.shape[1]
            assert together.mask[i].sum() == alone.mask.sum() > 0
            assert torch.equal(together.mask[i, :n], alone.mask[0])
            real = alone.mask[0]
            assert torch.allclose(together.tokens[i, :n][real], alone.tokens[0][real], atol=1e-5)
    assert together.tokens.shape == (len(clips), together.mask.shape[1], encoder.width)


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_the_official_model_on_its_official_features(folders, name):
    encoder = HFAudio(str(folders[name])).eval()
    clips, batch = _batch([0.8, 0.8])
    extractor = hf.AutoFeatureExtractor.from_pretrained(folders[name])
    inputs = dict(extractor([c.numpy() for c in clips], sampling_rate=16000, return_tensors="pt"))
    inputs.pop("attention_mask", None)
    if "is_longer" in inputs:  # the official extractor marks one row at random
        inputs["is_longer"] = torch.zeros(2, 1, dtype=torch.bool)
        inputs["input_features"] = inputs["input_features"].float()
    model = hf.AutoModel.from_pretrained(folders[name]).eval()
    if name == "whisper":
        model = model.get_encoder()
    if name.startswith("clap"):
        model = model.audio_model
    with torch.no_grad():
        want = model(**inputs).last_hidden_state
        got = encoder(batch)
    if want.ndim == 4:  # (N, W, F, T)
        want = want.permute(0, 3, 2, 1).flatten(1, 2)
    if name == "ast":  # patches come frequency first; ours time first
        bands = (32 - 8) // 6 + 1
        patches = want[:, 2:].unflatten(1, (bands, -1)).transpose(1, 2).flatten(1, 2)
        want = torch.cat([want[:, :2], patches], 1)
    n = got.tokens.shape[1]
    assert n >= 0.75 * want.shape[1]
    assert torch.allclose(got.tokens, want[:, :n], atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_is_deterministic_beyond_the_window(folders, name):
    encoder = HFAudio(str(folders[name])).eval()
    _, batch = _batch([2.5, 0.2])
    with torch.no_grad():
        np.random.seed(1)
        first = encoder(batch)
        np.random.seed(2)
        second = encoder(batch)
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.mask, second.mask)


@pytest.mark.parametrize(("name", "per_second"), [("wav2vec2-group", 400), ("whisper", 50), ("clap-pad", 64)])
def test_mask_counts_real_time(folders, name, per_second):
    encoder = HFAudio(str(folders[name])).eval()
    with torch.no_grad():
        mask = encoder(_batch([0.25, 0.5, 1.0])[1]).mask
    assert np.allclose(mask.sum(1) / per_second, [0.25, 0.5, 1.0], atol=0.04)


@pytest.mark.parametrize("name", FAMILIES)
def test_trains_without_mixing_rows(folders, name):
    encoder = HFAudio(str(folders[name])).train()
    assert not any(m.training for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    features = encoder(_batch([0.5, 0.05])[1])
    features.tokens[features.mask].square().sum().backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters()) > 10


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FAMILIES)
def test_keeps_the_encoder_contract(folders, name, check):
    check(lambda: HFAudio(str(folders[name])), Audio(**HFAudio(str(folders[name])).modality_options()))


def test_weights_can_be_left_out(folders):
    encoder, again = (HFAudio(str(folders["wavlm"]), weights=w) for w in (True, False))
    assert encoder.fingerprint() != again.fingerprint()
    again.load_state_dict(encoder.state_dict())
    assert encoder.fingerprint() == again.fingerprint()


def test_asks_its_modality_for_its_rate_and_window(folders):
    assert HFAudio(str(folders["hubert"])).modality_options() == {"rate": 16000}
    assert HFAudio(str(folders["whisper"])).modality_options() == {"rate": 16000, "max_seconds": 1.0}
    assert HFAudio(str(folders["clap"])).modality_options() == {"rate": 16000, "max_seconds": 1.0}


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer", "ast", "whisper"])
def test_a_folder_without_extractor_gets_its_family_s(folders, name, tmp_path):
    model = hf.AutoModel.from_pretrained(folders[name])
    model.save_pretrained(tmp_path)
    extractor = HFAudio(str(tmp_path)).extractor
    saved = hf.AutoFeatureExtractor.from_pretrained(folders[name])
    assert type(extractor) is type(saved)
    for key in (
        "do_normalize",
        "feature_size",
        "num_mel_bins",
        "max_length",
        "chunk_length",
        "sampling_rate",
    ):
        assert getattr(extractor, key, None) == getattr(saved, key, None)


def test_clap_leaves_its_text_tower_behind(folders):
    assert not any("text" in name for name in HFAudio(str(folders["clap"])).state_dict())


def test_fingerprint_follows_weights_and_settings(folders, tmp_path):
    first = HFAudio(str(folders["hubert"]))
    assert first.fingerprint() == HFAudio(str(folders["hubert"])).fingerprint()
    before = first.fingerprint()
    first.extractor.do_normalize = False
    assert first.fingerprint() != before
    first.extractor.do_normalize = True
    with torch.no_grad():
        next(first.parameters()).add_(1e-3)
    assert first.fingerprint() != before


def test_refuses_what_it_cannot_load(folders, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nowhere"):
        HFAudio(str(tmp_path / "nowhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="example/absent"):
        HFAudio("example/absent")
    hf.BertConfig(**_BODY).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"bert.*wav2vec2"):
        HFAudio(str(tmp_path))


def test_refuses_a_checkpoint_with_holes(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(folders["hubert"] / "model.safetensors")
    lost = next(name for name in weights if "layers.1.attention" in name)
    hf.AutoConfig.from_pretrained(folders["hubert"]).save_pretrained(tmp_path)
    save_file(
        {k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match="lack"):
        HFAudio(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(UserError, match="cannot load"):
        HFAudio(str(tmp_path))


def _as_mert(hubert, folder, **more):
    """A HuBERT folder as MERT's authors publish theirs."""
    import json
    import shutil

    shutil.copytree(hubert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mert_model", "architectures": ["MERTModel"], "sample_rate": 24000, **more}
    config["auto_map"] = {
        "AutoConfig": "configuration_MERT.MERTConfig",
        "AutoModel": "modeling_MERT.MERTModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").unlink()
    return str(folder)


def test_mert_is_heard_as_the_hubert_that_it_is(folders, tmp_path):
    mert = _as_mert(folders["hubert"], tmp_path / "mert", feature_extractor_cqt=False, deepnorm=False)
    one, two = HFAudio(mert).eval(), HFAudio(str(folders["hubert"])).eval()
    assert one.modality_options() == {"rate": 24000}
    one.extractor.do_normalize = two.extractor.do_normalize
    _, batch = _batch([0.5, 0.2])
    with torch.no_grad():
        assert torch.equal(one(batch).tokens, two(batch).tokens)
    again = HFAudio(mert, weights=False)
    again.load_state_dict(one.state_dict())


@pytest.mark.parametrize("more", [{"feature_extractor_cqt": True}, {"deepnorm": True}])
def test_a_mert_that_is_more_than_a_hubert_is_refused(folders, tmp_path, more):
    with pytest.raises(UserError, match="MERT"):
        HFAudio(_as_mert(folders["hubert"], tmp_path / "mert", **more))


@torch.no_grad()
@pytest.mark.parametrize("name", ["wav2vec2-group", "hubert", "whisper", "ast"])
def test_attention_is_as_asked_and_gives_the_same(folders, name):
    _, batch = _batch([0.3, 0.7])
    plain = HFAudio(str(folders[name])).eval()
    eager, sdpa = (HFAudio(str(folders[name]), attention=a).eval() for a in ("eager", "sdpa"))
    assert [e.tower.config._attn_implementation for e in (eager, sdpa)] == ["eager", "sdpa"]
    assert len({e.fingerprint() for e in (plain, eager, sdpa)}) == 3
    a, b = eager(batch), sdpa(batch)
    torch.testing.assert_close(a.tokens[a.mask], b.tokens[b.mask], atol=1e-4, rtol=1e-4)
    sdpa.attention = "flash_attention_2"  # its precision alone
    assert sdpa(batch).tokens.dtype == torch.float32
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"pip install flash-attn.*'sdpa'"):
            HFAudio(str(folders[name]), attention="flash_attention_2")
