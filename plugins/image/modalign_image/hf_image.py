"""Any Hugging Face image model as an encoder, patch by patch."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any, ClassVar

import torch
from modalign import UserError
from modalign.contracts import Batch, Encoder, Features
from torch.nn import functional as F

from .pretrained import attention_precision, load_image_model


class HFImage(Encoder):
    """The last hidden states of a Hugging Face image model: its class token, then its patches.

    ViT, DeiT, DINOv2, the vision towers of CLIP and SigLIP; Swin and ResNet give their last grid as
    tokens. States are taken after the final layer norm. Code from the hub is never run.

    Prefer DINOv2 for texture and parts, SigLIP or CLIP where text will be aligned with it.

    Inputs:
        model: hub id or a folder written by ``save_pretrained``.
        size: side of its input; default: the model's own. Another size interpolates its positions.
        weights: False builds the architecture with random weights, to be loaded or trained later.
        attention: "eager", "sdpa" or "flash_attention_2" (a GPU and the package flash-attn; computes in
            bfloat16). None: what transformers chooses, sdpa where the model has it.

    Raises:
        UserError: if the model cannot be found, reached or understood, or a package is missing.
    """

    modality: ClassVar[str] = "image"

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, model: str, size: int | None = None, weights: bool = True, attention: str | None = None
    ) -> None:
        super().__init__()
        self.pretrained = weights
        self.attention = attention
        self.network, pixels = load_image_model(str(model), weights, attention)
        config: Any = self.network.config
        parameters = inspect.signature(self.network.forward).parameters
        if "spatial_shapes" in parameters:
            raise UserError(f"{model!r} wants patches of varying shape; choose a checkpoint of one size")
        self.size = size or pixels.size
        self._options: dict[str, bool] = {}
        if self.size != getattr(config, "image_size", self.size) and "interpolate_pos_encoding" in parameters:
            self._options["interpolate_pos_encoding"] = True
        self.width: int = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        self.register_buffer("mean", torch.tensor(pixels.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(pixels.std).view(3, 1, 1))

    def modality_options(self) -> dict[str, Any]:
        """The size of its input."""
        return {"size": self.size}

    def forward(self, batch: Batch) -> Features:
        """``pixels (N, 3, S, S)`` in [0, 1] -> tokens ``(N, T, W)``, mask ``(N, T)``, all True."""
        pixels = batch["pixels"]  # (N, 3, S, S)
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)
            pixels = pixels.clamp(0, 1)  # (N, 3, size, size)
        pixels = (pixels - self.mean) / self.std  # (N, 3, size, size)
        with attention_precision(self.attention, pixels.device):
            tokens = self.network(pixel_values=pixels, **self._options).last_hidden_state  # (N, T, W)
        if tokens.ndim == 4:  # a grid (N, W, H', W') of a convolutional network
            tokens = tokens.flatten(2).mT  # (N, T, W)
        if str(self.network.config.model_type) in _CLIP_LIKE:  # type: ignore[union-attr]
            tokens = self.network.post_layernorm(tokens)  # type: ignore[operator]  # (N, T, W)
        return Features(tokens.float(), torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def fingerprint(self) -> str:
        """Weights, size, architecture settings and attention: each of them changes the output."""
        settings = {k: v for k, v in self.network.config.to_dict().items() if k not in _IRRELEVANT}  # type: ignore[union-attr, operator]
        chosen = [self.attention] if self.attention else []
        text = json.dumps([self.size, settings, *chosen], sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=8)
        return f"{super().fingerprint()}-{digest.hexdigest()}"


_CLIP_LIKE = tuple(f"{name}_vision_model" for name in ("clip", "metaclip_2", "chinese_clip", "altclip"))
"""Towers that apply their final layer norm to the class token only, outside the hidden states."""

_IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
