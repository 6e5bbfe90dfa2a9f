"""The Python environment that plugins are installed into: what it holds, whether it may change."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from modalign.errors import UserError

from .discover import CORE

OLDEST_PIP = "22.2"
"""The first pip that says what it would install without installing it."""

IN_STEP = ("torchaudio", "torchvision")
"""Built for one release of torch: as fixed as torch itself."""


def versions() -> dict[str, str]:
    """What is installed, as ``pip freeze`` sees it: canonical name -> version."""
    found: dict[str, str] = {}
    importlib.invalidate_caches()
    for distribution in metadata.distributions():
        try:
            found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution.version)
        except Exception:  # the remains of some other installation
            continue
    return found


def fixed(installed: dict[str, str]) -> dict[str, str]:
    """The core with all it needs, directly or not: what no plugin may replace."""
    names, queue = {"pip"}, [CORE, *IN_STEP]
    while queue:
        name = canonicalize_name(queue.pop())
        if name in installed and name not in names:
            names.add(name)
            queue += [each.name for each in requirements(name)]
    return {name: installed[name] for name in sorted(names) if name in installed}


def requirements(name: str) -> list[Requirement]:
    """What an installed distribution asks for here, without extras; damaged lines are left out."""
    try:
        return parse_requirements(metadata.requires(name) or ())
    except Exception:  # gone, or its metadata are damaged
        return []


def parse_requirements(lines: Iterable[str]) -> list[Requirement]:
    """The requirements among ``lines`` that hold here, without extras; damaged ones are left out."""
    found = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(requirement)
    return found


def breakages(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is installed and would no longer have what it asks for: one line each."""
    changed = {name for name in before if after.get(name) != before[name]}
    found = []
    for name in sorted(set(before) & set(after) - changed):
        for requirement in requirements(name):
            other, allowed = canonicalize_name(requirement.name), requirement.specifier
            if other not in changed or not allowed.contains(before[other], True):
                continue
            if other not in after or not allowed.contains(after[other], True):
                found.append(
                    f"{name} {before[name]} needs {requirement}, {other} would be {after.get(other, 'gone')}"
                )
    return found


def paths() -> dict[str, Path]:
    """Where wheels go: ``purelib``, ``platlib``, ``scripts``, ``data``, ``headers``."""
    found = {key: Path(sysconfig.get_path(key)) for key in ("purelib", "platlib", "scripts", "data")}
    headers = Path(sys.prefix) / "include" / "site" / f"python{sysconfig.get_python_version()}"
    return {**found, "headers": headers}


def own(name: str) -> metadata.Distribution | None:
    """The distribution as installed in this very environment, not in one that it merely sees."""
    importlib.invalidate_caches()
    here = [str(paths()[key]) for key in ("purelib", "platlib")]
    for distribution in metadata.distributions(path=here):
        try:
            if canonicalize_name(distribution.metadata["Name"]) == name:
                return distribution
        except Exception:
            continue
    return None


def state_folder() -> Path:
    """Where an installation under way keeps its lock, its journal and its backups."""
    return Path(sys.prefix) / ".modalign"


def check_changeable() -> None:
    """That plugins can be installed here.

    Raises:
        UserError: if pip is missing or too old, or the environment belongs to the system.
    """
    mark = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    make = "python3 -m venv .venv, install modalign there, and use .venv/bin/modalign"
    if sys.prefix == sys.base_prefix and mark.is_file():
        raise UserError(
            f"this Python ({sys.executable}) is managed by the system and must not be changed. Run: {make}"
        )
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"this environment has no pip. Run: {sys.executable} -m ensurepip --upgrade (in one made by uv: "
            f"uv pip install --python {sys.executable} pip), then the same command again"
        )
    pip = metadata.version("pip")
    if Version(pip) < Version(OLDEST_PIP):
        raise UserError(f"pip {pip} is too old. Run: {sys.executable} -m pip install --upgrade pip")
    purelib = paths()["purelib"]
    if not os.access(purelib, os.W_OK):
        raise UserError(f"you may not write to {purelib}. Run: {make}")
