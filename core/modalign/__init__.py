"""modalign: align any modality with the ones you already have.

Names are imported on first use, so that ``import modalign`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .contracts import (
        BadSample,
        Embeddings,
        Encoder,
        Features,
        Items,
        Loss,
        Modality,
        Projection,
        Report,
        Task,
        file_bytes,
    )
    from .errors import UserError
    from .plugin.component import Component, hookimpl
    from .space import Space
    from .training import Plan, align, load

_HOME = {
    "contracts": (
        "BadSample", "Embeddings", "Encoder", "Features", "Items", "Loss", "Modality",
        "Projection", "Report", "Task", "file_bytes",
    ),
    "errors": ("UserError",),
    "plugin.component": ("Component", "hookimpl"),
    "space": ("Space",),
    "training": ("Plan", "align", "load"),
}  # fmt: skip
_NAMES = {name: module for module, names in _HOME.items() for name in names}
_MODULES = ("hub", "losses", "mlflow", "projections", "tasks", "testing")

__all__ = ["__version__", *sorted(_NAMES)]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"modalign.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"modalign.{name}")
    raise AttributeError(f"module 'modalign' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
