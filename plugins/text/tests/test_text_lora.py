"""Adapters in text models: what they train, what they carry, what they refuse."""

import pytest
import torch
import transformers as hf
from modalign import UserError
from modalign_text.hf_text import HFText
from modalign_text.modality import Text
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

pytest.importorskip("peft", reason="needs the extra modalign-text[lora]")
torch.set_num_threads(1)
TEXT = Text()
BATCH = TEXT.collate(TEXT.example(5))


def save(folder, gpt=False, seed=0):
    torch.manual_seed(seed)
    if gpt:
        network = hf.GPT2Model(hf.GPT2Config(vocab_size=200, n_embd=16, n_layer=2, n_head=2, n_positions=40))
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        network = hf.BertModel(hf.BertConfig(vocab_size=200, max_position_embeddings=40, **sizes))
    network.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        TEXT.example(60), trainers.BpeTrainer(vocab_size=200, special_tokens=["[PAD]", "[UNK]"])
    )
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    return str(folder)


def moved(encoder):
    """The encoder after a few steps of descent on something."""
    optimiser = torch.optim.SGD(encoder.parameters(), lr=1.0)
    for _ in range(3):
        optimiser.zero_grad()
        encoder(BATCH).tokens[..., 0].sum().backward()
        optimiser.step()
    return encoder


@pytest.mark.parametrize("gpt", [False, True], ids=["bert", "gpt"])
def test_adapters_change_nothing_until_they_are_trained_and_nothing_else_trains(tmp_path, gpt):
    folder = save(tmp_path, gpt)
    plain, encoder = HFText(folder).eval(), HFText(folder, lora=2).eval()
    before = plain(BATCH).tokens
    assert torch.equal(encoder(BATCH).tokens, before)
    assert all("lora_" in name for name, _ in encoder.named_parameters())
    weights = {n: b.clone() for n, b in encoder.named_buffers()}
    moved(encoder)
    assert not torch.allclose(encoder(BATCH).tokens, before)
    assert all(torch.equal(b, weights[n]) for n, b in encoder.named_buffers())
    assert encoder.fingerprint() != HFText(folder, lora=2).fingerprint()


def test_the_state_holds_adapters_only_and_goes_back_onto_the_same_weights(tmp_path):
    folder = save(tmp_path)
    encoder = moved(HFText(folder, lora=2, lora_alpha=4)).eval()
    state = encoder.state_dict()
    assert {n.rpartition(".")[2] for n in state if "lora_" not in n} == {"adapted"}
    again = HFText(folder, lora=2, lora_alpha=4).eval()
    again.load_state_dict(state)
    assert torch.equal(again(BATCH).tokens, encoder(BATCH).tokens)
    assert again.fingerprint() == encoder.fingerprint()


def test_other_weights_refuse_them(tmp_path):
    state = HFText(save(tmp_path / "a"), lora=2).state_dict()
    other = HFText(save(tmp_path / "b", seed=1), lora=2)
    with pytest.raises(UserError, match="other weights"):
        other.load_state_dict(state)


def test_random_weights_travel_along(tmp_path):
    folder = save(tmp_path)
    encoder = HFText(folder, weights=False, lora=2).eval()
    again = HFText(folder, weights=False, lora=2).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(BATCH).tokens, encoder(BATCH).tokens)


def test_alpha_is_the_strength(tmp_path):
    folder = save(tmp_path)
    one = moved(HFText(folder, lora=2, lora_alpha=2)).eval()
    none = HFText(folder, lora=2, lora_alpha=1e-9).eval()
    none.load_state_dict(one.state_dict())
    assert torch.allclose(none(BATCH).tokens, HFText(folder).eval()(BATCH).tokens, atol=1e-6)


def test_arguments_out_of_range_are_named(tmp_path):
    folder = save(tmp_path)
    with pytest.raises(UserError, match="rank -1"):
        HFText(folder, lora=-1)
