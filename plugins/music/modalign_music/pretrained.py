"""Folders of pre-trained encoder weights: written by pretrain, read by the encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from modalign import UserError
from torch import nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SIZES = ("width", "layers", "heads", "ngrams", "buckets")
"""The arguments that weights must share with the encoder they are loaded into."""
_UNTRAINED = "ask."  # the pool is learnt with the alignment


def save(encoder: nn.Module, folder: Path, sizes: dict[str, Any], about: dict[str, Any]) -> None:
    """Write ``config.json`` and ``model.safetensors``.

    Inputs:
        encoder: a ``PatchTransformer``.
        folder: made if absent.
        sizes: its arguments named in ``SIZES``.
        about: what else ``config.json`` tells people.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in encoder.state_dict().items() if not k.startswith(_UNTRAINED)}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps({"sizes": sizes, **about}, indent=2) + "\n")


def load_into(encoder: nn.Module, folder: str, sizes: dict[str, Any]) -> None:
    """Give an encoder the weights of a folder.

    Raises:
        UserError: if the folder is none that ``save`` wrote, or its sizes are not the encoder's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((Path(folder) / CONFIG).read_text())
        state = load_file(Path(folder) / WEIGHTS)
        saved = {name: config["sizes"][name] for name in SIZES}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"weights: {folder!r} is no folder of music weights ({type(error).__name__}); make one with "
            "python -m modalign_music.pretrain --table TABLE --column COLUMN --out FOLDER"
        ) from None
    wrong = {name: (saved[name], sizes[name]) for name in SIZES if saved[name] != sizes[name]}
    if wrong:
        said = ", ".join(f"{name} {a}, not {b}" for name, (a, b) in wrong.items())
        raise UserError(f"weights: {folder!r} has {said}; give the encoder the same")
    own = encoder.state_dict()
    needed = {k: v.shape for k, v in own.items() if not k.startswith(_UNTRAINED)}
    if {k: v.shape for k, v in state.items()} != needed:
        raise UserError(f"weights: the tensors in {folder!r} are not this encoder's; train them again")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
