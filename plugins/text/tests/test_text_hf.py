"""hf-text on tiny random models of every family it promises, saved and loaded for real."""

import huggingface_hub.constants
import pytest
import torch
import transformers as hf
from modalign import UserError
from modalign_text.hf_text import HFText
from modalign_text.modality import Text
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

torch.set_num_threads(1)
TEXT = Text()
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = TEXT.example(60)


def save_tokenizer(folder, cls="[CLS]", sep="[SEP]", pad="[PAD]", **extra):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    special = [cls, pad, sep, "[UNK]"]
    tokenizer.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    if sep:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}", special_tokens=[(t, tokenizer.token_to_id(t)) for t in (cls, sep)]
        )
    names = {"pad_token": pad} if pad else {}
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=sep, unk_token="[UNK]", **names, **extra
    )
    fast.save_pretrained(folder)
    return fast


def bert():
    return hf.BertModel(hf.BertConfig(vocab_size=300, max_position_embeddings=40, **SIZES))


def roberta():
    return hf.RobertaModel(
        hf.RobertaConfig(vocab_size=300, max_position_embeddings=42, pad_token_id=1, **SIZES)
    )


def gpt():
    return hf.GPT2Model(hf.GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=40))


def t5():
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=1
        )
    )


def clip():
    text = {"vocab_size": 300, "max_position_embeddings": 40, "eos_token_id": 2, "pad_token_id": 1, **SIZES}
    vision = {"image_size": 16, "patch_size": 8, **SIZES}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def siglip():
    text = {"vocab_size": 300, "max_position_embeddings": 40, "projection_size": 16, **SIZES}
    vision = {"image_size": 16, "patch_size": 8, **SIZES}
    return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision))


FAMILIES = [bert, roberta, gpt, t5, clip, siglip]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.__name__)
def saved(request, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param.__name__)
    network = request.param().eval()
    network.save_pretrained(folder)
    tokenizer = save_tokenizer(folder, pad="" if request.param is gpt else "[PAD]")
    return request.param.__name__, network, tokenizer, folder


def reference(name, network, tokenizer, text):
    """Last hidden states of one text alone, without padding unless the model was trained on it."""
    if name == "siglip":
        ids = tokenizer(
            text, padding="max_length", max_length=40, truncation=True, return_tensors="pt"
        ).input_ids
    else:
        ids = tokenizer(text, max_length=40, truncation=True, return_tensors="pt").input_ids
    part = {"t5": "encoder", "clip": "text_model", "siglip": "text_model"}.get(name)
    return (getattr(network, part) if part else network)(input_ids=ids).last_hidden_state[0]


@torch.no_grad()
def test_tokens_are_the_models_and_ignore_the_rest_of_the_batch(saved):
    name, network, tokenizer, folder = saved
    encoder = HFText(str(folder), max_tokens=40).eval()
    texts = [*TEXT.example(6, seed=3), "x", "long " * 60]
    features = encoder(TEXT.collate(texts))
    assert features.tokens.shape[2] == encoder.width == 16
    for i, text in enumerate(texts):
        expected = reference(name, network, tokenizer, text)
        assert len(expected) <= 40
        real = features.tokens[i][features.mask[i]]
        torch.testing.assert_close(real, expected, atol=1e-5, rtol=1e-5)
        alone = encoder(TEXT.collate([text]))
        torch.testing.assert_close(real, alone.tokens[0][alone.mask[0]], atol=1e-5, rtol=1e-5)


def test_every_parameter_is_trained(saved):
    encoder = HFText(str(saved[3])).train()
    features = encoder(TEXT.collate(TEXT.example(8)))
    (features.tokens * torch.randn_like(features.tokens)).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_fingerprint_sees_weights_and_settings(saved, tmp_path):
    encoder, again = HFText(str(saved[3])), HFText(str(saved[3]))
    again(TEXT.collate(["a longer text", "b"]))  # using it changes nothing
    assert encoder.fingerprint() == again.fingerprint()
    random = HFText(str(saved[3]), weights=False)
    assert random.fingerprint() != encoder.fingerprint()
    random.load_state_dict(encoder.state_dict())
    assert random.fingerprint() == encoder.fingerprint()


def test_the_models_own_limit_counts(saved):
    name, _, _, folder = saved
    assert HFText(str(folder)).max_tokens == (256 if name == "t5" else 40)  # T5 has no position table


def test_max_tokens_cuts(tmp_path):
    bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert HFText(str(tmp_path), max_tokens=7)(TEXT.collate(["long " * 60])).tokens.shape[1] == 7


def test_another_tokenizer_is_another_fingerprint(tmp_path):
    bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    first = HFText(str(tmp_path)).fingerprint()
    save_tokenizer(tmp_path, sep="[END]")
    assert HFText(str(tmp_path)).fingerprint() != first


def test_unknown_models_say_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nobody/nothing-here.*hub id"):
        HFText("nobody/nothing-here")
    with pytest.raises(UserError, match="no folder"):
        HFText("./nothing-here")
    with pytest.raises(UserError, match="save_pretrained"):
        HFText(str(tmp_path))


def test_missing_and_damaged_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        HFText(str(tmp_path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError):
        HFText(str(tmp_path))


def test_code_from_a_model_folder_is_never_run(tmp_path):
    import json

    bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.EvilModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError):
        HFText(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@torch.no_grad()
def test_attention_is_as_asked_and_gives_the_same(saved, tmp_path):
    _, _, _, folder = saved
    texts = TEXT.collate([*TEXT.example(4, seed=3), "x"])
    plain = HFText(str(folder), max_tokens=40).eval()
    eager = HFText(str(folder), max_tokens=40, attention="eager").eval()
    assert eager.network.config._attn_implementation == "eager"
    prints = {plain.fingerprint(), eager.fingerprint()}
    sdpa = HFText(str(folder), max_tokens=40, attention="sdpa").eval()
    assert sdpa.network.config._attn_implementation == "sdpa"
    assert len({*prints, sdpa.fingerprint()}) == 3
    a, b = eager(texts), sdpa(texts)
    torch.testing.assert_close(a.tokens[a.mask], b.tokens[b.mask], atol=1e-5, rtol=1e-5)
    sdpa.attention = "flash_attention_2"  # its precision alone
    flash = sdpa(texts).tokens
    assert flash.dtype == torch.float32
    assert not torch.equal(flash[b.mask], b.tokens[b.mask])
    torch.testing.assert_close(flash[b.mask], b.tokens[b.mask], atol=0.1, rtol=0.1)


def test_attention_that_cannot_be_had_says_what_to_type(saved):
    with pytest.raises(UserError, match="use one of eager, sdpa, flash_attention_2"):
        HFText(str(saved[3]), attention="fast")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"pip install flash-attn.*'sdpa'"):
            HFText(str(saved[3]), attention="flash_attention_2")
