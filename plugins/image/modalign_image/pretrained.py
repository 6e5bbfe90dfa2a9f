"""Loads a Hugging Face image model and how it wants its pixels, or says what to type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from modalign import UserError
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import is_flash_attn_2_available, logging

UNUSED = ("pooler", "head", "mask_token")
"""Parts that make one vector of the tokens, or serve masked pretraining; we use neither."""

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Pixels:
    """How a model wants its pixels: side of the square, mean and standard deviation per channel."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_image_model(model: str, weights: bool, attention: str | None = None) -> tuple[nn.Module, Pixels]:
    """The image model (the vision tower of a dual encoder) and how it wants its pixels.

    Inputs:
        model: a hub id or a folder written by ``save_pretrained``.
        weights: False builds the architecture without loading its weights.
        attention: see ``attention_options``.

    Raises:
        UserError: if it cannot be found, reached or understood, or if weights are missing in it.
    """
    options = {"trust_remote_code": False, **attention_options(attention)}
    if (model.startswith((".", "~")) or os.path.isabs(model)) and not os.path.isdir(model):
        raise UserError(f"no folder {model!r}; give a folder written by save_pretrained, or a hub id")
    missing: set[str] = set()
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            if weights:
                network, info = AutoModel.from_pretrained(
                    model, dtype=torch.float32, output_loading_info=True, **options
                )
                missing = set(info["missing_keys"])
            else:
                network = AutoModel.from_config(config, **options)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"cannot load the image model {model!r}: {reason}. "
            "Give a folder written by save_pretrained, or a hub id such as 'facebook/dinov2-small' and a "
            "network to fetch it through; HF_HUB_OFFLINE=1 uses what was fetched before without asking it"
        ) from error
    prefix = ""
    if isinstance(getattr(network, "vision_model", None), nn.Module):  # CLIP and its kin
        network, prefix = network.vision_model, "vision_model."
    missing = {m for m in missing if m.startswith(prefix) and not set(m.split(".")) & set(UNUSED)}
    if missing:
        raise UserError(
            f"{model!r} lacks {len(missing)} weights of its own image model, such as {min(missing)}; "
            "they would be random. Save it again with save_pretrained, or pass weights: false"
        )
    _drop_unused(network)
    return network, _pixels(model, network.config)


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


def _drop_unused(network: Any) -> None:
    """Parameters that get no gradient would stop distributed training."""
    pooler = getattr(network, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        network.pooler = None
    if isinstance(getattr(network, "head", None), nn.Module):  # SigLIP's attention pooling
        network.use_head, network.head = False, None
    embeddings = getattr(network, "embeddings", None)
    if isinstance(getattr(embeddings, "mask_token", None), nn.Parameter):
        embeddings.mask_token = None  # type: ignore[union-attr, assignment]


def _pixels(model: str, config: Any) -> Pixels:
    """From the folder's image processor where there is one, else what the family is known for."""
    try:
        with _quiet():
            given, _ = ImageProcessingMixin.get_image_processor_dict(model)
    except OSError:
        given = {}
    kind = str(config.model_type)
    own = _side(getattr(config, "image_size", None)) or 224
    size = _side(given.get("crop_size")) if given.get("do_center_crop", "crop_size" in given) else None
    size = size or _side(given.get("size")) or (224 if kind.startswith("dinov2") else own)
    if kind.startswith(("vit", "siglip")):
        mean, std = _HALF
    else:
        mean, std = _CLIP if "clip" in kind else _IMAGENET
    if given.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif given:
        mean, std = given.get("image_mean") or mean, given.get("image_std") or std
    return Pixels(size, tuple(mean), tuple(std))


def _side(value: Any) -> int | None:
    """``224``, ``{"height": 224, ...}``, ``{"shortest_edge": 224}`` or ``[224, 224]`` -> 224."""
    if isinstance(value, dict):
        value = value.get("height") or value.get("shortest_edge")
    if isinstance(value, list | tuple):
        value = value[0]
    return int(value) if value else None


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
