"""Pretrained audio encoders from the Hugging Face hub or a local folder."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

import torch
from torch import nn

from modalign import Encoder, Features, UserError
from modalign.contracts import Batch

from .hf_families import FAMILIES, Family


class HFAudio(Encoder):
    """A pretrained audio transformer: every token of its last layer.

    wav2vec2 (arXiv 2006.11477), HuBERT (2106.07447), WavLM (2110.13900), AST (2104.01778), the encoder
    of Whisper (2212.04356) and the audio tower of CLAP (2211.06687). Clips longer than the model's
    window (Whisper 30 s, AST and CLAP 10 s) are cut. Prefer it over ``logmel-cnn`` whenever its weights
    can be had: HuBERT or WavLM for speech, AST or CLAP for sounds and music.

    Inputs:
        model: a hub id such as ``facebook/hubert-base-ls960``, or a folder with config.json and weights.
        revision: a branch, tag or commit of the hub repository.

    Raises:
        UserError: if the model cannot be loaded, or is of another family.
    """

    modality: ClassVar[str] = "audio"

    def __init__(self, model: str, revision: str | None = None) -> None:
        super().__init__()
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModel

        safe: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(model, **safe)
            if config.model_type not in FAMILIES:
                raise UserError(
                    f"hf-audio: {model} is a {config.model_type} model; known are {', '.join(sorted(FAMILIES))}"
                )
            family = FAMILIES[config.model_type]
            whole, loading = AutoModel.from_pretrained(
                model, config=config, dtype=torch.float32, output_loading_info=True, **safe
            )
            self.extractor = _extractor(model, safe) or family.extractor(config)
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"hf-audio: cannot load model {model!r}: {reason}\nGive a hub id such as "
                "facebook/hubert-base-ls960 (downloaded once, then cached), or a folder made by "
                "save_pretrained() that holds config.json and the weights."
            ) from None
        self.kind = str(config.model_type)
        self.tower: nn.Module = family.tower(whole)
        self._refuse_untrained(model, whole, set(loading["missing_keys"]))
        config = self.tower.config
        if hasattr(config, "apply_spec_augment"):
            config.apply_spec_augment = False  # it draws from numpy, and fails on short clips
        self.width = int(family.width(config))

    @property
    def family(self) -> Family:
        return FAMILIES[self.kind]

    def _refuse_untrained(self, model: str, whole: nn.Module, missing: set[str]) -> None:
        """Weights absent from a checkpoint would be random numbers: say so instead."""
        used = {id(parameter) for parameter in self.tower.parameters()}
        lost = sorted(
            name
            for name, parameter in whole.named_parameters()
            if name in missing and id(parameter) in used and "masked_spec_embed" not in name
        )
        if lost:
            raise UserError(
                f"hf-audio: the weights of {model!r} lack {len(lost)} of this model's tensors "
                f"({lost[0]} …); give a complete checkpoint"
            )

    def train(self, mode: bool = True) -> HFAudio:
        """As usual, but batch statistics stay frozen: they would mix the rows of a batch."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def modality_options(self) -> dict[str, Any]:
        """The model's sampling rate, and its window where it has one."""
        options: dict[str, Any] = {"rate": int(self.extractor.sampling_rate)}
        window = self.family.window(self.extractor)
        return options if window is None else {**options, "max_seconds": float(window)}

    def fingerprint(self) -> str:
        """Weights, configuration and feature extraction."""
        settings = {**self.tower.config.to_dict(), "extractor": self.extractor.to_dict()}
        plain = {k: v for k, v in settings.items() if k not in ("_name_or_path", "transformers_version")}
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.blake2b(f"{super().fingerprint()} {text}".encode(), digest_size=16).hexdigest()

    def forward(self, batch: Batch) -> Features:
        lengths = batch["mask"].sum(1).tolist()
        waves = batch["wave"].detach().float().cpu().numpy()  # (N, L)
        clips = [wave[:length] for wave, length in zip(waves, lengths, strict=True)]  # N x (L_i,)
        tokens, mask = self.family.run(self.tower, self.extractor, clips)  # (N, T, W), (N, T)
        longest = int(mask.any(0).nonzero().max()) + 1
        return Features(tokens[:, :longest], mask[:, :longest])  # (N, T', W), (N, T')


def _extractor(model: str, options: dict[str, Any]) -> Any:
    """The feature extractor saved with the model, or None if none was."""
    from transformers import AutoFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(model, **options)
    except (OSError, ValueError):
        return None
