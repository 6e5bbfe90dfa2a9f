"""Pretrained audio encoders from the Hugging Face hub or a local folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import nn

from .hf_families import FAMILIES, Family, hubert_of_mert

_UNUSED = ("masked_spec_embed", "fusion_model", "mel_conv2d")
"""Parameters that no output depends on: for masked training, and for CLAP's clips beyond its window."""


class HFAudio(Encoder):
    """A pretrained audio transformer: every token of its last layer.

    wav2vec2 (arXiv 2006.11477), HuBERT (2106.07447), MERT (2306.00107), WavLM (2110.13900), AST
    (2104.01778), the encoder of Whisper (2212.04356) and the audio tower of CLAP (2211.06687). Clips longer
    than the model's window (Whisper 30 s, AST and CLAP 10 s) are cut. Prefer it over ``logmel-cnn`` whenever
    its weights can be had: HuBERT or WavLM for speech, AST or CLAP for sounds, MERT for music.

    Inputs:
        model: a hub id such as ``facebook/hubert-base-ls960``, or a folder with config.json and weights.
        revision: a branch, tag or commit of the hub repository.
        weights: False builds the architecture with random weights, to be loaded or trained later.
        attention: "eager", "sdpa" or "flash_attention_2" (a GPU and the package flash-attn; computes in
            bfloat16). None: what transformers chooses, sdpa where the model has it.

    Raises:
        UserError: if the model cannot be loaded, or is of another family, or a package is missing.
    """

    modality: ClassVar[str] = "audio"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        weights: bool = True,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        self.pretrained = weights
        self.attention = attention
        whole, self.extractor, missing = _load(model, revision, weights, attention_options(attention))
        self.kind = str(whole.config.model_type)
        self.tower: Any = self.family.tower(whole)
        for name, parameter in self.tower.named_parameters():
            if any(part in name for part in _UNUSED):
                parameter.requires_grad_(False)
        _refuse_untrained(model, whole, self.tower, missing)
        if hasattr(self.tower.config, "apply_spec_augment"):
            self.tower.config.apply_spec_augment = False  # it draws from numpy, and fails on short clips
        self.width = int(self.family.width(self.tower.config))

    @property
    def family(self) -> Family:
        return FAMILIES[self.kind]

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
        """Weights, configuration, feature extraction and attention."""
        settings = {**self.tower.config.to_dict(), "extractor": self.extractor.to_dict()}
        if self.attention:
            settings["attention"] = self.attention
        plain = {k: v for k, v in settings.items() if k not in ("_name_or_path", "transformers_version")}
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.blake2b(f"{super().fingerprint()} {text}".encode(), digest_size=16).hexdigest()

    def forward(self, batch: Batch) -> Features:
        lengths = batch["mask"].sum(1).tolist()
        waves = batch["wave"].detach().float().cpu().numpy()  # (N, L)
        clips = [wave[:length] for wave, length in zip(waves, lengths, strict=True)]  # N x (L_i,)
        tower = _Bfloat16(self.tower) if self.attention == "flash_attention_2" else self.tower
        tokens, mask = self.family.run(tower, self.extractor, clips)  # (N, T, W), (N, T)
        longest = int(mask.any(0).nonzero().max()) + 1
        return Features(tokens[:, :longest].float(), mask[:, :longest])  # (N, T', W), (N, T')


ATTENTION = ("eager", "sdpa", "flash_attention_2")


def attention_options(attention: str | None) -> dict[str, Any]:
    """What transformers is told about how a model attends; None: nothing, it chooses.

    Raises:
        UserError: for another name, or if flash attention cannot run here.
    """
    if attention is None:
        return {}
    from transformers.utils import is_flash_attn_2_available

    if attention not in ATTENTION:
        raise UserError(f"attention {attention!r}: use one of {', '.join(ATTENTION)}")
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UserError(
            "attention 'flash_attention_2' needs a GPU and the package flash-attn (pip install flash-attn); "
            "without them use 'sdpa'"
        )
    return {"attn_implementation": attention}


class _Bfloat16:
    """A tower for flash attention, which takes 16 bits alone; feature extraction stays as it is."""

    def __init__(self, tower: Any) -> None:
        self.tower = tower

    def __call__(self, values: torch.Tensor, **more: Any) -> Any:
        with torch.autocast(values.device.type, torch.bfloat16):
            return self.tower(values, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tower, name)


def _load(
    model: str, revision: str | None, weights: bool, attention: dict[str, Any]
) -> tuple[Any, Any, set[str]]:
    """The model, its feature extractor, and the names of the weights its checkpoint lacks."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, PretrainedConfig

    safe: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    missing: set[str] = set()
    try:
        with _quiet():
            settings, _ = PretrainedConfig.get_config_dict(model, revision=revision)
            if (
                settings.get("model_type") == "mert_model"
            ):  # its own code only adds what hubert_of_mert refuses
                config = hubert_of_mert(settings)
            else:
                config = AutoConfig.from_pretrained(model, **safe)
            if config.model_type not in FAMILIES:
                raise UserError(
                    f"hf-audio: {model!r} is a {config.model_type} model; give one of these kinds: "
                    f"{', '.join(sorted(FAMILIES))}"
                )
            if weights:
                whole, report = AutoModel.from_pretrained(
                    model, config=config, dtype=torch.float32, output_loading_info=True, **safe, **attention
                )
                missing = set(report["missing_keys"])
            else:
                whole = AutoModel.from_config(config, dtype=torch.float32, **attention)
            return whole, _extractor(model, safe) or FAMILIES[config.model_type].extractor(config), missing
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"hf-audio: cannot load model {model!r}: {reason}\nGive a hub id such as "
            "facebook/hubert-base-ls960 (downloaded once, then cached), or a folder made by "
            "save_pretrained() that holds config.json and the weights."
        ) from None


def _refuse_untrained(model: str, whole: nn.Module, tower: nn.Module, missing: set[str]) -> None:
    """Weights absent from a checkpoint would be random numbers: say so instead."""
    used = {id(parameter) for parameter in tower.parameters() if parameter.requires_grad}
    lost = sorted(name for name, p in whole.named_parameters() if name in missing and id(p) in used)
    if lost:
        raise UserError(
            f"hf-audio: the weights of {model!r} lack {len(lost)} of this model's tensors, such as "
            f"{lost[0]}; give a complete checkpoint, or weights: false for random ones"
        )


def _extractor(model: str, options: dict[str, Any]) -> Any:
    """The feature extractor saved with the model, or None if none was."""
    from transformers import AutoFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(model, **options)
    except (OSError, ValueError):
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and loading reports: what is wrong becomes an error here."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
