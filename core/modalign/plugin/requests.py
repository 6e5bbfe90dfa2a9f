"""From what somebody asks to install to where it comes from and who vouches for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modalign.errors import UserError, suggest

from .environment import versions
from .registry import Entry, entries

TRUST = {
    "core": "core: part of modalign's own repository",
    "reviewed": "reviewed: the code of this version was read by us",
    "listed": "listed: its name is reserved, its code was not read",
    "unlisted": "unlisted: nobody vouches for it, not even for its name",
    "yours": "yours: a file or folder on this machine",
}
"""How far each kind of request may be trusted, in words."""


@dataclass(frozen=True)
class Request:
    """One thing to install.

    Inputs:
        label: what it is called; a folder's or file's path until it has been read.
        wanted: what pip is asked for; None for a folder or a wheel.
        folder, wheel: on this machine.
        editable: link the folder instead of copying it.
        version, sha256: what the catalogue pins.
    """

    label: str
    trust: str
    source: str
    summary: str = ""
    needs: tuple[str, ...] = ()
    wanted: str | None = None
    folder: Path | None = None
    wheel: Path | None = None
    editable: bool = False
    version: str | None = None
    sha256: str | None = None

    def describe(self) -> str:
        """What somebody should know before saying yes."""
        lines = [f"{self.label}  {self.summary}".rstrip(), f"  trust   {TRUST[self.trust]}"]
        lines.append(f"  source  {self.source}")
        if self.needs:
            there = versions()
            have = (f"{n} ({there.get(canonicalize_name(n), 'not installed yet')})" for n in self.needs)
            lines.append(f"  needs   {', '.join(have)}")
        return "\n".join(lines)


def requests(
    names: Sequence[str], folders: Sequence[str] = (), unlisted: Sequence[str] = ()
) -> list[Request]:
    """What was asked for, looked up; nothing is run.

    Inputs:
        names: listed names, perhaps with versions, or wheels (``*.whl``).
        folders: to be linked (``-e``).
        unlisted: requirements, or wheels whatever the catalogue says of them.

    Raises:
        UserError: if a name is not listed, a path does not exist, or nothing was asked for.
    """
    listed = {entry.distribution: entry for entry in entries()}
    found = [_wheel(n, listed) if _is_file(n) else _listed(n, listed) for n in names]
    found += [_folder(folder) for folder in folders]
    found += [_wheel(u, {}) if _is_file(u) else _unlisted(u, listed) for u in unlisted]
    if not found:
        raise UserError("name a plugin to install. Run: modalign plugins search")
    labels = [request.label for request in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"{', '.join(twice)} was named twice")
    return found


def _is_file(text: str) -> bool:
    return text.endswith(".whl") and "://" not in text


def _requirement(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement:
        hint = " (a folder? Use -e PATH)" if re.search(r"[/\\]|^\.", text) else ""
        raise UserError(f"'{text}' is not a name with versions, such as name>=1,<2{hint}") from None


def _listed(text: str, listed: dict[str, Entry]) -> Request:
    asked = _requirement(text)
    name: str = canonicalize_name(asked.name)
    if name not in listed and f"modalign-{name}" in listed:
        name = f"modalign-{name}"
    if name not in listed:
        raise UserError(
            f"{name} is not in the plugin catalogue{suggest(name, listed) or '.'} "
            f"Known: {', '.join(listed) or 'none'}. To install it all the same, "
            f"run: modalign plugins install --unlisted '{text}'"
        )
    if asked.url or asked.marker:
        raise UserError(f"'{text}': a listed plugin is named, perhaps with versions; no URL, no marker")
    entry, extras = listed[name], f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    about = {"label": name, "trust": entry.trust, "summary": entry.summary, "needs": entry.needs}
    said = f", as {entry.file} says" if entry.trust != "core" else ""
    if entry.folder is not None and not asked.specifier and not extras:
        return Request(**about, source=str(entry.folder), folder=entry.folder)  # type: ignore[arg-type]
    if entry.version is not None and not asked.specifier.contains(entry.version, prereleases=True):
        raise UserError(
            f"the catalogue pins {name} {entry.version}. To install another, "
            f"run: modalign plugins install --unlisted '{text}'"
        )
    limits = (
        Requirement(entry.requirement).specifier & asked.specifier if entry.requirement else asked.specifier
    )
    wanted = f"{name}{extras}=={entry.version}" if entry.version else f"{name}{extras}{limits}"
    return Request(
        **about,  # type: ignore[arg-type]
        source=f"{wanted} from the package index{said}" + (", its hash enforced" if entry.sha256 else ""),
        wanted=wanted,
        version=entry.version,
        sha256=entry.sha256,
    )


def _unlisted(text: str, listed: dict[str, Entry]) -> Request:
    asked = _requirement(text)
    name = canonicalize_name(asked.name)
    source = asked.url or f"{text} from the package index"
    if name in listed:
        source += " (listed, but not asked for as listed)"
    return Request(name, "unlisted", source, wanted=text)


def _folder(text: str) -> Request:
    path = Path(text).resolve()
    if not (path / "pyproject.toml").is_file() and not (path / "setup.py").is_file():
        raise UserError(f"-e {text}: no plugin's folder, it has no pyproject.toml")
    return Request(
        str(path), "yours", f"{path}, linked: changes there are seen at once", folder=path, editable=True
    )


def _wheel(text: str, listed: dict[str, Entry]) -> Request:
    path = Path(text).resolve()
    if not path.is_file():
        raise UserError(f"there is no wheel {text}")
    from .wheel import read_wheel

    wheel = read_wheel(path)
    entry = listed.get(wheel.name)
    pinned = entry is not None and entry.version == wheel.version
    return Request(
        wheel.name,
        "yours",
        str(path),
        wheel=path,
        summary=entry.summary if entry else "",
        needs=entry.needs if entry else (),
        version=entry.version if entry and pinned else None,
        sha256=entry.sha256 if entry and pinned else None,
    )
