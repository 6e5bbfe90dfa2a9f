"""Removes and restores single files of the environment, and nothing outside of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from .environment import paths


def inside(path: Path) -> bool:
    """Whether a path lies in the environment."""
    roots = {Path(sys.prefix), *paths().values()}
    return any(root in path.parents for root in roots)


def remove(files: Iterable[Path]) -> None:
    """Remove files, what Python compiled of them, and the folders that are empty then."""
    folders = set()
    for file in {Path(os.path.normpath(each)) for each in files}:
        if not inside(file):
            continue
        if file.is_file() or file.is_symlink():
            file.unlink()
        if file.suffix == ".py":
            cache = file.parent / "__pycache__"
            for compiled in cache.glob(f"{file.stem}.*.pyc"):
                compiled.unlink()
            folders.add(cache)
        folders.add(file.parent)
    keep = {Path(sys.prefix), *paths().values()}
    for folder in sorted(folders, key=lambda each: -len(each.parts)):
        while folder not in keep and inside(folder) and folder.is_dir() and not os.listdir(folder):
            folder.rmdir()
            folder = folder.parent


def restore(copy: Path, file: Path) -> None:
    """Put a copy back where it was, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    shutil.copy2(copy, new)
    os.replace(new, file)


def clashes(files: Iterable[Path], allowed: Iterable[Path]) -> list[Path]:
    """Which of these files exist already and belong to somebody else than ``allowed``."""
    allowed = set(allowed)
    return sorted(file for file in files if file not in allowed and os.path.lexists(file))
