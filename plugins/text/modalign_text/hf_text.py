"""Any Hugging Face text model as an encoder, token by token."""

from __future__ import annotations

from itertools import chain
from typing import ClassVar

import torch
from modalign.contracts import Batch, Encoder, Features
from torch import nn

from .lora import add_lora
from .modality import decode
from .pretrained import attention_precision, describe, load_text_model


class HFText(Encoder):
    """The last hidden states of a Hugging Face text model, one token per word piece.

    BERT, RoBERTa, XLM-R, MPNet and other encoders, sentence encoders, GPT-like models, T5 encoders
    and the text towers of CLIP and SigLIP. Code from the hub is never run.

    Prefer it when a model knows the language or the field; XLM-R for many languages.

    Inputs:
        model: hub id or a folder written by ``save_pretrained``.
        max_tokens: longer texts are cut there, or at the model's own limit if that is lower. SigLIP
            keeps its own fixed length.
        weights: False builds the architecture with random weights, to be loaded or trained later.
        lora: rank of adapters in every linear layer (LoRA; needs ``modalign-text[lora]``); they alone are
            trained and travel with a space. 0: none, and ``trainable`` trains the whole model.
        lora_alpha: strength of the adapters; by default the rank.
        attention: "eager", "sdpa" or "flash_attention_2" (a GPU and the package flash-attn; computes in
            bfloat16). None: what transformers chooses, sdpa where the model has it.

    Raises:
        UserError: if the model cannot be found, reached or understood, or a package is needed and missing.
    """

    modality: ClassVar[str] = "text"

    def __init__(
        self,
        model: str,
        max_tokens: int = 256,
        weights: bool = True,
        lora: int = 0,
        lora_alpha: float | None = None,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.pretrained = weights and not lora
        self.network, self._tokenizer = load_text_model(str(model), weights, attention)
        config = self.network.config
        self.width: int = config.hidden_size  # type: ignore[union-attr, assignment]
        # SigLIP was trained on padding of a fixed length that every token attends to.
        self._fixed_length = str(config.model_type).startswith("siglip")  # type: ignore[union-attr]
        limits = [self._tokenizer.model_max_length, _positions(self.network)]
        self.max_tokens = _positions(self.network) if self._fixed_length else min(max_tokens, *limits)
        if lora:
            self.extras = ("lora",)
            self.network = add_lora(self.network, lora, lora_alpha or lora, carry=not weights)

    def forward(self, batch: Batch) -> Features:
        """``bytes`` and ``mask``, both ``(N, L)`` -> tokens ``(N, T, W)``, mask ``(N, T)``."""
        encoded = self._tokenizer(
            decode(batch),
            padding="max_length" if self._fixed_length else True,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = next(chain(self.network.parameters(), self.network.buffers())).device
        ids = encoded["input_ids"].to(device)  # (N, T)
        mask = encoded["attention_mask"].to(device)  # (N, T)
        if self._fixed_length:
            mask = torch.ones_like(mask)  # (N, T)
        elif mask.shape[1]:
            mask[:, 0] = 1  # a text of unknown characters may leave no token; keep one
        with attention_precision(self.attention, device):
            tokens = self.network(input_ids=ids, attention_mask=mask).last_hidden_state  # (N, T, W)
        return Features(tokens.float(), mask.bool())

    def fingerprint(self) -> str:
        """Weights, architecture settings, tokenizer, attention: each of them changes the output."""
        chosen = f"-{self.attention}" if self.attention else ""
        return f"{super().fingerprint()}-{describe(self.network, self._tokenizer)}{chosen}"


def _positions(network: nn.Module) -> int:
    """How many tokens the position table holds; RoBERTa's first rows belong to padding."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITION_TABLES:
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return int(getattr(network.config, "max_position_embeddings", None) or 10**9)  # type: ignore[union-attr]


_POSITION_TABLES = ("position_embedding", "position_embeddings", "wpe")
