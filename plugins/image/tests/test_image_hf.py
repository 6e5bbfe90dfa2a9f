"""hf-image on tiny random models of every family it promises, saved and loaded for real."""

import json

import huggingface_hub.constants
import pytest
import torch
import transformers as hf
from modalign import UserError
from modalign_image.hf_image import HFImage
from modalign_image.modality import Image
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PICTURE = {"image_size": 16, "patch_size": 8, **SIZES}


def vit():
    return hf.ViTModel(hf.ViTConfig(**PICTURE))


def dinov2():
    return hf.Dinov2Model(hf.Dinov2Config(**PICTURE))


def clip():
    text = {"vocab_size": 50, **SIZES}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=8))


def siglip():
    text = {"vocab_size": 50, "projection_size": 16, **SIZES}
    return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=PICTURE))


def swin():
    return hf.SwinModel(
        hf.SwinConfig(
            image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
        )
    )


def resnet():
    return hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))


FAMILIES = [vit, dinov2, clip, siglip, swin, resnet]
TOKENS = {"vit": 5, "dinov2": 5, "clip": 5, "siglip": 4, "swin": 16, "resnet": 4}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.__name__)
def saved(request, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param.__name__)
    network = request.param().eval()
    network.save_pretrained(folder)
    processor = {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    processor |= {"size": {"height": 16, "width": 16}, "image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return request.param.__name__, network, folder


def batch(n=3, seed=0):
    modality = Image(16)
    return modality.collate(modality.example(n, seed))


@torch.no_grad()
def test_tokens_are_the_models_on_normalised_pixels(saved):
    name, network, folder = saved
    encoder = HFImage(str(folder)).eval()
    assert encoder.modality_options() == {"size": 16}
    features = encoder(batch())
    assert features.tokens.shape == (3, TOKENS[name], encoder.width)
    assert features.mask.all()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    tower = network.vision_model if name in ("clip", "siglip") else network
    output = tower(pixel_values=(batch()["pixels"] - mean) / std)
    if name == "clip":  # its own summary is the class token after the final layer norm
        torch.testing.assert_close(features.tokens[:, 0], output.pooler_output, atol=1e-5, rtol=1e-5)
    else:
        states = output.last_hidden_state
        states = states.flatten(2).mT if states.ndim == 4 else states
        torch.testing.assert_close(features.tokens, states, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_ignore_their_batch(saved):
    encoder = HFImage(str(saved[2])).eval()
    together, pixels = encoder(batch(5)).tokens, batch(5)["pixels"]
    for i in range(5):
        torch.testing.assert_close(
            together[i], encoder({"pixels": pixels[i : i + 1]}).tokens[0], atol=1e-5, rtol=1e-5
        )


def test_every_parameter_is_trained(saved):
    encoder = HFImage(str(saved[2])).train()
    tokens = encoder(batch(4)).tokens
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_fingerprint_sees_weights(saved):
    encoder, again = HFImage(str(saved[2])), HFImage(str(saved[2]))
    assert encoder.fingerprint() == again.fingerprint()
    random = HFImage(str(saved[2]), weights=False)
    assert random.fingerprint() != encoder.fingerprint()
    random.load_state_dict(encoder.state_dict())
    assert random.fingerprint() == encoder.fingerprint()


@torch.no_grad()
def test_another_size_interpolates_the_positions(saved):
    name, _, folder = saved
    encoder = HFImage(str(folder), size=32).eval()
    tokens = encoder(batch(2)).tokens
    assert encoder.modality_options() == {"size": 32}
    assert tokens.shape[1] > TOKENS[name]
    assert tokens.isfinite().all()


@pytest.mark.parametrize(
    ("given", "size", "mean"),
    [
        ({"size": 20, "crop_size": 18, "do_center_crop": True}, 18, 0.5),
        ({"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}}, 18, 0.5),
        ({"size": {"shortest_edge": 20}, "crop_size": 18, "do_center_crop": False}, 20, 0.5),
        ({"size": {"height": 12, "width": 12}, "do_normalize": False}, 12, 0.0),
        ({"image_mean": [0.3, 0.3, 0.3]}, 16, 0.3),
        (None, 16, 0.5),
    ],
)
def test_the_folders_image_processor_is_followed(tmp_path, given, size, mean):
    vit().save_pretrained(tmp_path)
    if given is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    encoder = HFImage(str(tmp_path))
    assert encoder.size == size
    assert encoder.mean[0].item() == pytest.approx(mean)


def test_normalisation_equals_the_image_processors_own(tmp_path):
    processor = pytest.importorskip("transformers").CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=16
    )
    clip().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    encoder = HFImage(str(tmp_path)).eval()
    items = Image(16).example(3)
    expected = processor([i.numpy() for i in items], return_tensors="pt", input_data_format="channels_first")
    mine = (Image(16).collate(items)["pixels"] - encoder.mean) / encoder.std
    torch.testing.assert_close(mine, expected["pixel_values"], atol=1e-5, rtol=1e-5)


def test_unknown_models_say_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nobody/nothing-here.*hub id"):
        HFImage("nobody/nothing-here")
    with pytest.raises(UserError, match="no folder"):
        HFImage("./nothing-here")
    with pytest.raises(UserError, match="save_pretrained"):
        HFImage(str(tmp_path))


def test_missing_weights_are_refused(tmp_path):
    dinov2().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["layernorm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        HFImage(str(tmp_path))


def test_models_of_varying_patches_are_refused(tmp_path):
    config = hf.Siglip2Config(
        text_config={"vocab_size": 50, **SIZES}, vision_config={"num_patches": 4, **SIZES}
    )
    hf.Siglip2Model(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="one size"):
        HFImage(str(tmp_path))


@torch.no_grad()
def test_attention_is_as_asked_and_gives_the_same(saved):
    name, _, folder = saved
    eager = HFImage(str(folder), attention="eager").eval()
    assert eager.fingerprint() != HFImage(str(folder)).fingerprint()
    if name == "resnet":  # has none
        with pytest.raises(UserError, match="attention"):
            HFImage(str(folder), attention="sdpa")
        return
    sdpa = HFImage(str(folder), attention="sdpa").eval()
    assert [e.network.config._attn_implementation for e in (eager, sdpa)] == ["eager", "sdpa"]
    torch.testing.assert_close(eager(batch()).tokens, sdpa(batch()).tokens, atol=1e-5, rtol=1e-5)
    sdpa.attention = "flash_attention_2"  # its precision alone
    assert sdpa(batch()).tokens.dtype == torch.float32
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"pip install flash-attn.*'sdpa'"):
            HFImage(str(folder), attention="flash_attention_2")
