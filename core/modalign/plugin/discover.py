"""Which plugins are installed, and which must not be imported: metadata only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import modalign

from .component import Component

GROUP = "modalign.plugins"
"""The entry-point group a plugin's ``pyproject.toml`` names its module in."""

CORE = "modalign"


@dataclass
class Plugin:
    """One installed distribution that declares a plugin; a row of ``modalign plugins list``."""

    distribution: str
    """Its canonical name."""
    version: str
    module: str
    """Where the entry points lead; several are joined with a comma."""
    problem: str | None = None
    """Why it was not loaded, or what it did wrong later; None if all is well."""
    components: dict[str, list[Component]] = field(default_factory=dict)
    """What it offers, by kind."""
    disabled: bool = False
    loaded: bool = False
    entry_points: list[metadata.EntryPoint] = field(default_factory=list, repr=False)


def disabled_by(name: str, plan: Iterable[str] = ()) -> str | None:
    """Who disabled ``name``: the environment, the plan, or nobody (None).

    Both may leave out the prefix ``modalign-``.
    """
    environment = os.environ.get("MODALIGN_DISABLE", "").split(",")
    for source, names in (("MODALIGN_DISABLE", environment), ("the plan", plan)):
        wanted = {canonicalize_name(word.strip()) for word in names if word.strip()}
        if name in wanted or any(f"{CORE}-{word}" == name for word in wanted):
            return f"disabled by {source}"
    return None


def find(disable: Iterable[str] = ()) -> list[Plugin]:
    """Every installed plugin, alphabetical; ``problem`` is set where it must not be imported.

    A distribution that several path entries hold counts once: the one Python would import.
    """
    found: dict[str, Plugin] = {}
    for distribution in metadata.distributions():
        try:
            declared = GROUP in (distribution.read_text("entry_points.txt") or "")
            name = distribution.metadata["Name"] if declared else None
        except Exception:  # damaged metadata of a distribution that may have nothing to do with us
            continue
        if name and canonicalize_name(name) not in found:
            plugin = _row(canonicalize_name(name), distribution, tuple(disable))
            if plugin is not None:
                found[plugin.distribution] = plugin
    return [found[name] for name in sorted(found)]


def _row(name: str, seen: metadata.Distribution, disable: tuple[str, ...]) -> Plugin | None:
    try:
        distribution = metadata.distribution(name)  # the first on the path, as for imports
        canonicalize_name(distribution.metadata["Name"])  # but not the remains of an interrupted pip
    except Exception:
        distribution = seen
    plugin = Plugin(name, "?", "?")
    try:
        plugin.version = distribution.version
        plugin.entry_points = sorted(distribution.entry_points.select(group=GROUP), key=lambda e: e.name)
        plugin.module = ", ".join(dict.fromkeys(e.value for e in plugin.entry_points))
        plugin.problem = disabled_by(name, disable)
        plugin.disabled = plugin.problem is not None
        if plugin.problem is None and name != CORE:
            plugin.problem = _version_problem(distribution.requires or [])
    except Exception as error:
        plugin.problem = f"unreadable metadata: {one_line(error)}"
        return plugin
    return plugin if plugin.entry_points else None


def _version_problem(requires: Iterable[str]) -> str | None:
    """Why these requirements do not admit the installed core; None if they do."""
    needed = [Requirement(text) for text in requires]
    fences = [
        requirement.specifier
        for requirement in needed
        if canonicalize_name(requirement.name) == CORE
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]
    if not fences:
        return 'declares no requirement on modalign; add "modalign>=x,<y" to its dependencies'
    for fence in fences:
        if not fence.contains(modalign.__version__, prereleases=True):
            return f"needs modalign {fence}, installed is {modalign.__version__}"
    return None


def one_line(error: BaseException) -> str:
    """``"Type: message"`` without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def strict() -> bool:
    """Whether ``MODALIGN_STRICT`` asks for tracebacks: for people who write plugins."""
    return os.environ.get("MODALIGN_STRICT", "0") not in ("", "0")
