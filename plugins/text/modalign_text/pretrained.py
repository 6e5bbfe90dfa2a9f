"""Loads a Hugging Face text model and its tokenizer, or says what to type."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from modalign import UserError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils import is_flash_attn_2_available, logging

UNUSED = ("pooler", "head")
"""Parts that read the tokens to make one vector; we take the tokens themselves."""


def load_text_model(model: str, weights: bool, attention: str | None = None) -> tuple[nn.Module, Any]:
    """The text model (the text tower of a dual encoder, the encoder of T5) and its tokenizer.

    Inputs:
        model: a hub id or a folder written by ``save_pretrained``.
        weights: False builds the architecture without loading its weights.
        attention: see ``attention_options``.

    Raises:
        UserError: if it cannot be found, reached or understood, or if weights are missing in it.
    """
    options = {"trust_remote_code": False, **attention_options(attention)}
    if _is_path(model) and not os.path.isdir(model):
        raise UserError(f"no folder {model!r}; give a folder written by save_pretrained, or a hub id")
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            auto = AutoModelForTextEncoding if getattr(config, "is_encoder_decoder", False) else AutoModel
            missing: set[str] = set()
            if weights:
                network, info = auto.from_pretrained(
                    model, dtype=torch.float32, output_loading_info=True, **options
                )
                missing = set(info["missing_keys"])
            else:
                network = auto.from_config(config, **options)
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"cannot load the text model {model!r}: {_reason(error)}. {_WHAT_TO_TYPE}") from error
    network, prefix = _text_tower(network)
    missing = {m for m in missing if m.startswith(prefix) and not set(m.split(".")) & set(UNUSED)}
    if missing:
        raise UserError(
            f"{model!r} lacks {len(missing)} weights of its own text model, such as {min(missing)}; "
            "they would be random. Save it again with save_pretrained, or pass weights: false"
        )
    _drop_unused(network)
    return network, _with_padding(tokenizer, model)


ATTENTION = ("eager", "sdpa", "flash_attention_2")


def attention_options(attention: str | None) -> dict[str, Any]:
    """What transformers is told about how a model attends; None: nothing, it chooses.

    Raises:
        UserError: for another name, or if flash attention cannot run here.
    """
    if attention is None:
        return {}
    if attention not in ATTENTION:
        raise UserError(f"attention {attention!r}: use one of {', '.join(ATTENTION)}")
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UserError(
            "attention 'flash_attention_2' needs a GPU and the package flash-attn (pip install flash-attn); "
            "without them use 'sdpa'"
        )
    return {"attn_implementation": attention}


def attention_precision(attention: str | None, device: torch.device) -> AbstractContextManager[Any]:
    """Flash attention takes 16 bits alone: bfloat16 inside, whatever the run's precision."""
    flash = attention == "flash_attention_2"
    return torch.autocast(device.type, torch.bfloat16) if flash else nullcontext()


def describe(network: nn.Module, tokenizer: Any) -> str:
    """A digest of what shapes the output beyond the weights: architecture settings and tokenizer."""
    settings = {k: v for k, v in network.config.to_dict().items() if k not in _IRRELEVANT}  # type: ignore[union-attr, operator]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = dict(json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab())
    for set_by_each_call in ("truncation", "padding"):
        words.pop(set_by_each_call, None)
    text = json.dumps([settings, words], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


_IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
_WHAT_TO_TYPE = (
    "Give a folder written by save_pretrained, or a hub id such as 'FacebookAI/xlm-roberta-base' and a "
    "network to fetch it through; HF_HUB_OFFLINE=1 uses what was fetched before without asking the network"
)


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or os.path.isabs(model)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _text_tower(network: nn.Module) -> tuple[nn.Module, str]:
    """CLIP-like models hold a text model beside a vision model; keep only the former."""
    if isinstance(getattr(network, "text_model", None), nn.Module):
        return network.text_model, "text_model."  # type: ignore[return-value]
    return network, ""


def _drop_unused(network: nn.Module) -> None:
    """Parameters that get no gradient would stop distributed training."""
    if isinstance(getattr(network, "pooler", None), nn.Module):
        network.pooler = None  # type: ignore[assignment]
    if isinstance(getattr(network, "head", None), nn.Module):
        network.head = nn.Identity()


def _with_padding(tokenizer: Any, model: str) -> Any:
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:  # GPT-like: any token will do, the mask hides it
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of {model!r} has no padding token; set pad_token in its folder")
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading reports and progress bars are for people who load by hand."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
