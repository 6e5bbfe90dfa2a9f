"""Whether the plugins that made a space are here, and the command that brings them."""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import Version

from modalign.errors import UserError

from . import loader
from .discover import CORE


def install_command(distribution: str, version: str | None = None) -> str:
    """What to type to get that plugin, in that version."""
    from .registry import entries

    wanted = f"'{distribution}=={version}'" if version else distribution
    if distribution == CORE:
        return f"pip install {wanted}"
    try:
        entry = next((each for each in entries() if each.distribution == distribution), None)
    except UserError:  # a damaged catalogue must not hide the message under way
        entry = None
    if entry is None or (version and entry.version not in (None, version)):
        return f"modalign plugins install --unlisted {wanted}"
    return f"modalign plugins install {wanted}"


def require(made_with: Mapping[str, str]) -> None:
    """That every plugin a space was made with is installed and loaded, in whatever version.

    Inputs:
        made_with: distribution -> version.

    Raises:
        UserError: naming every one that is not, and the command that installs it.
    """
    here = {plugin.distribution: plugin for plugin in loader.plugins()}
    missing = []
    for name, version in made_with.items():
        plugin = here.get(name)
        if plugin is None:
            bare = install_command(name)
            command = install_command(name, version) if "--unlisted" in bare else bare
            missing.append(f"{name} (made with {version}) is not installed. Run: {command}")
        elif not plugin.loaded:
            cure = "" if plugin.disabled else f". Run: {install_command(name, version)}"
            missing.append(f"{name} {plugin.version} is not loaded: {plugin.problem}{cure}")
    if missing:
        raise UserError("; ".join(missing))


def changed(made_with: Mapping[str, str], *, series: bool = False) -> str:
    """The plugins in another version than a space was made with, and what brings that one; "" if none.

    Inputs:
        series: only those in another release series (``1.x``, ``0.3.x``), which may mean something else.
    """
    here = {plugin.distribution: plugin.version for plugin in loader.plugins()}
    return "; ".join(
        f"it was made with {name} {version}, installed is {here[name]}. Run: {install_command(name, version)}"
        for name, version in made_with.items()
        if here.get(name, version) != version and not (series and _series(here[name]) == _series(version))
    )


def _series(version: str) -> tuple[int, ...]:
    try:
        release = Version(version).release
    except ValueError:  # no version, or one of thousands of digits
        return ()
    return release[:1] if release[0] else (*release, 0)[:2]
