"""The contract every plugin keeps; hf-text on a tiny model, minilm where its package is."""

import tempfile
from functools import cache

import torch
import transformers
from modalign.testing import parametrize_checks
from modalign_text.hf_text import HFText
from modalign_text.minilm import MiniLM, package_folder
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

torch.set_num_threads(1)
FOLDER = tempfile.TemporaryDirectory()


@cache
def saved() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [], trainers.BpeTrainer(special_tokens=["[PAD]"], initial_alphabet=alphabet)
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
    fast.save_pretrained(FOLDER.name)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    network = transformers.BertModel(transformers.BertConfig(vocab_size=len(fast), **sizes))
    network.save_pretrained(FOLDER.name)
    return FOLDER.name


INSTANCES = {"hf-text": lambda: HFText(saved()), "minilm": MiniLM if package_folder() else None}


@parametrize_checks("modalign-text", instances=INSTANCES)
def test_contract(check):
    check()
