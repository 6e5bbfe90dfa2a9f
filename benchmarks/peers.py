"""Single files of installed peers, without all that their packages import."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType


def peer(package: str, path: str, unused: Mapping[str, str] | None = None) -> ModuleType:
    """``path`` inside an installed package, as a module; no ``__init__`` of a folder below it is run.

    Inputs:
        unused: modules that the file's own imports ask for and its losses never use, each with the
            name taken from it: an empty class stands in where the module is not installed.

    Raises:
        ModuleNotFoundError: if the package, or anything else the file imports, is missing.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"not installed: {package}")
    root = Path(found.origin).parent
    spec = importlib.util.spec_from_file_location(f"{package}_{Path(path).stem}", root / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = dict(sys.modules)
    try:
        for folder in (package, f"{package}.models", f"{package}.models.modules"):
            bare(folder, root.joinpath(*folder.split(".")[1:]))
        for name, taken in (unused or {}).items():
            if importlib.util.find_spec(name.split(".")[0]) is None:
                setattr(bare(name, None), taken, type(taken, (), {}))
        spec.loader.exec_module(module)
    finally:
        for name in sys.modules.keys() - before.keys():
            if name.split(".")[0] in {package, *(name.split(".")[0] for name in unused or {})}:
                del sys.modules[name]
        sys.modules.update({k: v for k, v in before.items() if k.split(".")[0] == package})
    return module


def bare(name: str, folder: Path | None) -> ModuleType:
    """A package that runs nothing: its modules are found in ``folder``."""
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        bare(parent, None)
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(folder)] if folder else []
    return sys.modules[name]
