"""How each family of pretrained audio models is fed, row by row independent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Clips = list[np.ndarray]


@dataclass(frozen=True)
class Family:
    """What differs between families.

    Inputs:
        tower: the loaded model -> the module that hears.
        extractor: configuration -> its feature extractor, for checkpoints that were saved without.
        run: tower, extractor, clips of ``(L_i,)`` samples -> tokens ``(N, T, W)``, mask ``(N, T)``.
        window: feature extractor -> seconds the model hears; None = any length.
        width: configuration -> ``W``.
    """

    tower: Callable[[Any], nn.Module]
    extractor: Callable[[Any], Any]
    run: Callable[[Any, Any, Clips], tuple[Tensor, Tensor]]
    window: Callable[[Any], float | None] = lambda extractor: None
    width: Callable[[Any], int] = lambda config: config.hidden_size


# -- wav2vec2, HuBERT, WavLM: raw waveforms of any length --------------------------------------------


def _wave_extractor(config: Any) -> Any:
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(
        sampling_rate=getattr(config, "sample_rate", 16000),  # MERT's is 24000
        do_normalize=config.feat_extract_norm == "layer",
    )


def _run_waves(tower: Any, extractor: Any, clips: Clips) -> tuple[Tensor, Tensor]:
    """Clips of one length go together, unpadded.

    The group norm of the base models averages over time, padding included, and no attention mask
    reaches it.
    """
    shortest = 1
    for kernel, stride in reversed(
        list(zip(tower.config.conv_kernel, tower.config.conv_stride, strict=True))
    ):
        shortest = (shortest - 1) * stride + kernel  # samples that make one token
    clips = [np.pad(clip, (0, max(0, shortest - len(clip)))) for clip in clips]
    groups: dict[int, list[int]] = {}
    for row, clip in enumerate(clips):
        groups.setdefault(len(clip), []).append(row)
    found: list[tuple[list[int], Tensor]] = []
    for rows in groups.values():
        inputs = extractor(
            [clips[row] for row in rows], sampling_rate=extractor.sampling_rate, return_tensors="pt"
        )
        values = inputs["input_values"].to(_place(tower))  # (n, L)
        found.append((rows, tower(values).last_hidden_state))  # (n, T, W)
    longest = max(tokens.shape[1] for _, tokens in found)
    tokens = found[0][1].new_zeros(len(clips), longest, found[0][1].shape[2])  # (N, T, W)
    mask = torch.zeros(len(clips), longest, dtype=torch.bool, device=tokens.device)  # (N, T)
    for rows, part in found:
        tokens[rows, : part.shape[1]] = part
        mask[rows, : part.shape[1]] = True
    return tokens, mask


def hubert_of_mert(settings: dict[str, Any]) -> Any:
    """The configuration of MERT, a HuBERT of music (arXiv 2306.00107), as the HuBERT that it is.

    Raises:
        ValueError: if it is of the kind that also hears a constant-Q transform, or has DeepNorm.
    """
    from transformers import HubertConfig

    if settings.get("feature_extractor_cqt") or settings.get("deepnorm"):
        raise ValueError("a MERT with constant-Q features or DeepNorm; give one without, such as MERT-v1-95M")
    foreign = ("auto_map", "architectures", "model_type")
    return HubertConfig(**{k: v for k, v in settings.items() if k not in foreign})


# -- Whisper: 30 seconds of log-mel frames -----------------------------------------------------------


def _whisper_extractor(config: Any) -> Any:
    from transformers import WhisperFeatureExtractor

    seconds = config.max_source_positions * 2 * 160 // 16000
    return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=seconds)


def _run_whisper(tower: Any, extractor: Any, clips: Clips) -> tuple[Tensor, Tensor]:
    inputs = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    tokens = tower(inputs["input_features"].to(_place(tower))).last_hidden_state  # (N, T, W)
    step = 2 * extractor.hop_length  # samples a token stands for
    return tokens, _first([math.ceil(len(clip) / step) for clip in clips], tokens)


# -- AST: a fixed number of filter-bank frames, cut into overlapping patches -------------------------


def _ast_extractor(config: Any) -> Any:
    from transformers import ASTFeatureExtractor

    return ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)


def _run_ast(tower: Any, extractor: Any, clips: Clips) -> tuple[Tensor, Tensor]:
    config, rate = tower.config, extractor.sampling_rate
    frame, hop = int(rate * 0.025), int(rate * 0.01)
    clips = [np.pad(clip, (0, max(0, frame - len(clip)))) for clip in clips]
    inputs = extractor(clips, sampling_rate=rate, return_tensors="pt")
    out = tower(inputs["input_values"].to(_place(tower))).last_hidden_state  # (N, 2 + F * T, W)
    special, patches = out[:, :2], out[:, 2:]  # class and distillation tokens; patches, frequency first
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    patches = patches.unflatten(1, (bands, -1)).transpose(1, 2)  # (N, T, F, W)
    frames = [1 + (len(clip) - frame) // hop for clip in clips]
    real = _first([math.ceil(n / config.time_stride) for n in frames], patches)  # (N, T)
    mask = torch.cat([real.new_ones(len(clips), 2), real.repeat_interleave(bands, 1)], 1)
    return torch.cat([special, patches.flatten(1, 2)], 1), mask  # (N, 2 + T * F, W)


# -- CLAP: 10 seconds of log-mel frames, short clips repeated ----------------------------------------


def _clap_extractor(config: Any) -> Any:
    from transformers import ClapFeatureExtractor

    audio = config.audio_config
    return ClapFeatureExtractor(
        feature_size=audio.num_mel_bins, truncation="fusion" if audio.enable_fusion else "rand_trunc"
    )


def _run_clap(tower: Any, extractor: Any, clips: Clips) -> tuple[Tensor, Tensor]:
    """Clips are cut here, so that the extractor neither crops at random nor picks a "longer" row."""
    size = int(extractor.nb_max_samples)
    clips = [clip[:size] for clip in clips]
    inputs = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    values = inputs["input_features"].to(_place(tower), torch.float32)  # (N, 1 or 4, frames, mels)
    longer = torch.zeros(len(clips), 1, dtype=torch.bool, device=values.device)
    grid = tower(values, is_longer=longer).last_hidden_state  # (N, W, F, T)
    steps, bands = grid.shape[3], grid.shape[2]
    tokens = grid.permute(0, 3, 2, 1).flatten(1, 2)  # (N, T * F, W)
    if extractor.padding != "pad":
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)  # repeats are sound too
    real = _first([math.ceil(len(clip) * steps / size) for clip in clips], grid[:, 0].transpose(1, 2))
    return tokens, real.repeat_interleave(bands, 1)


def _first(counts: list[int], tokens: Tensor) -> Tensor:
    """``(N, T)`` True for the first ``counts[i]`` of ``tokens (N, T, ...)``, at least one."""
    limit = torch.tensor(counts, device=tokens.device).clamp(min=1)[:, None]  # (N, 1)
    return torch.arange(tokens.shape[1], device=tokens.device) < limit


def _place(tower: nn.Module) -> torch.device:
    return next(tower.parameters()).device


_WAVES = Family(lambda model: model, _wave_extractor, _run_waves)
FAMILIES: dict[str, Family] = {
    "wav2vec2": _WAVES,
    "hubert": _WAVES,
    "wavlm": _WAVES,
    "whisper": Family(
        lambda model: model.get_encoder(),
        _whisper_extractor,
        _run_whisper,
        window=lambda extractor: extractor.chunk_length,
        width=lambda config: config.d_model,
    ),
    "audio-spectrogram-transformer": Family(
        lambda model: model,
        _ast_extractor,
        _run_ast,
        window=lambda extractor: extractor.max_length / 100 + 0.015,
    ),
    "clap": Family(
        lambda model: model.audio_model,
        _clap_extractor,
        _run_clap,
        window=lambda extractor: extractor.max_length_s,
    ),
}
"""By the ``model_type`` of config.json."""
