"""A space on the Hugging Face hub, in sentence-transformers and in mteb."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mteb import SpaceEncoder
    from .pretrained import from_pretrained, push_to_hub, save_pretrained
    from .sentence_transformers import SpaceModule, as_sentence_transformer

_HOME = {
    "SpaceEncoder": "mteb",
    "SpaceModule": "sentence_transformers",
    "as_sentence_transformer": "sentence_transformers",
    "from_pretrained": "pretrained",
    "push_to_hub": "pretrained",
    "save_pretrained": "pretrained",
}

__all__ = [
    "SpaceEncoder", "SpaceModule", "as_sentence_transformer", "from_pretrained", "push_to_hub",
    "save_pretrained",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'modalign.hub' has no attribute {name!r}")
    return getattr(import_module(f"modalign.hub.{_HOME[name]}"), name)
