"""The journal of a change under way: enough to put the environment back, even after a kill."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from .environment import own, paths, state_folder, versions
from .files import inside, remove, restore


@dataclass
class Journal:
    """What a change is about to do.

    Inputs:
        what: in words, such as ``install modalign-x 0.1.0``.
        before: every installed distribution's version.
        planned: what will be new: distribution, version and, where they are known, files.
        backups: what will be replaced: distribution, version and its files, kept in the backup folder
            under their position in the list.
        listing: the names in the folders that plugins are installed to.
    """

    what: str
    before: dict[str, str]
    planned: list[tuple[str, str, list[str]]] = field(default_factory=list)
    backups: list[tuple[str, str, list[str]]] = field(default_factory=list)
    listing: dict[str, list[str]] = field(default_factory=dict)


def journal_file() -> Path:
    """Exists while the environment is being changed, or after a change was cut short."""
    return state_folder() / "journal.json"


def begin(what: str, planned: Iterable[tuple[str, str, Iterable[Path]]], replaced: Iterable[str]) -> Journal:
    """Back up what will be replaced, then write the journal. To be called with the lock held.

    Raises:
        OSError: if the backup cannot be made; nothing has been changed then.
    """
    journal = Journal(what, versions(), [(n, v, [str(f) for f in files]) for n, v, files in planned])
    backup = _backup_folder()
    shutil.rmtree(backup, ignore_errors=True)
    for name in replaced:
        distribution = own(name)
        if distribution is not None:
            kept = [str(f) for f in files_of(distribution) if f.is_file()]
            for number, file in enumerate(kept):
                copy = backup / name / str(number)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)
            journal.backups.append((name, distribution.version, kept))
    journal.listing = {str(folder): sorted(_names(folder)) for folder in _folders()}
    new = journal_file().with_suffix(".new")
    new.parent.mkdir(parents=True, exist_ok=True)
    with new.open("w", encoding="utf-8") as file_:
        json.dump(asdict(journal), file_)
        file_.flush()
        os.fsync(file_.fileno())
    os.replace(new, journal_file())
    return journal


def commit() -> None:
    """The change is done and good: forget how to undo it."""
    journal_file().unlink(missing_ok=True)
    shutil.rmtree(_backup_folder(), ignore_errors=True)


def pending() -> Journal | None:
    """The journal of a change that was cut short, or None."""
    try:
        return Journal(**json.loads(journal_file().read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def roll_back(journal: Journal) -> list[str]:
    """Put the environment back as it was before the change; safe to repeat if it is cut short itself.

    What has been installed in another version since then is left alone: somebody has moved on.

    Returns what could not be put back, one line each.
    """
    moved_on = set()
    for name, version, files in journal.planned:
        now = own(name)
        known = {version, *(v for n, v, _ in journal.backups if n == name)}
        gone = set(_about(name, version))
        if now is not None and now.version not in known:
            moved_on.add(name)
            remove(gone)
            continue
        gone |= {Path(file) for file in files}
        if now is not None and now.version == version:
            gone |= set(files_of(now))
        remove(gone | set(_links(name, journal)))
    for name, version, kept in journal.backups:
        now = own(name)
        if name not in moved_on and (now is None or now.version == version):
            for number, file in enumerate(kept):
                restore(_backup_folder() / name / str(number), Path(file))
    for folder in _folders():  # what pip puts aside while it replaces something
        for each in _names(folder) - set(journal.listing.get(str(folder), ())):
            if each.startswith("~"):
                shutil.rmtree(folder / each, ignore_errors=True)
    importlib.invalidate_caches()
    now_there = versions()
    wrong = [
        f"{name} was {journal.before.get(name, 'not installed')}, is {now_there.get(name, 'not installed')}"
        for name in sorted({*(n for n, _, _ in journal.planned), *(n for n, _, _ in journal.backups)})
        if name not in moved_on and journal.before.get(name) != now_there.get(name)
    ]
    if not wrong:
        commit()
    return wrong


def files_of(distribution: metadata.Distribution) -> list[Path]:
    """Where an installed distribution's files are, by its record; only those inside the environment."""
    base = Path(str(distribution.locate_file("")))
    found = [Path(os.path.normpath(base / str(file))) for file in distribution.files or ()]
    return [file for file in found if inside(file)]


def _about(name: str, version: str) -> list[Path]:
    """All that lies in a distribution's metadata folder, an installer's temporary files too."""
    wanted = f"{name}-{version}.dist-info".replace("-", "_").lower()
    folders = [f / each for f in _folders() for each in _names(f) if each.replace("-", "_").lower() == wanted]
    return [path for folder in folders for path in folder.rglob("*")]


def _links(name: str, journal: Journal) -> list[Path]:
    """What links a distribution's folder, if that was cut short before its record was written."""
    word = name.replace("-", "_")
    link = re.compile(rf"(_editable_impl_|__editable__[._]*)?{word}([-_.]\d.*)?\.(pth|py)", re.IGNORECASE)
    return [
        folder / each
        for folder in _folders()
        for each in _names(folder) - set(journal.listing.get(str(folder), ()))
        if link.fullmatch(each)
    ]


def _folders() -> list[Path]:
    where = paths()
    return sorted({where["purelib"], where["platlib"]})


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _backup_folder() -> Path:
    return state_folder() / "backup"
