"""Installs plugins: resolved and read first, changed then, checked, and put back if they fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modalign.errors import UserError

from . import journal as journals
from . import pip
from .discover import GROUP
from .environment import check_changeable, own, versions
from .journal import Journal
from .lock import locked
from .prepare import Prepared, prepare
from .requests import Request
from .reserved import reserved_elsewhere
from .verdict import Verdict


class InstallFailed(Exception):
    """It could not be installed, and the environment is as it was; the message says why."""

    def __init__(self, message: str, verdicts: Sequence[Verdict] = ()) -> None:
        super().__init__(message)
        self.verdicts = list(verdicts)


@dataclass(frozen=True)
class Outcome:
    """What an installation did.

    Inputs:
        changes: one line for each distribution that is new or has another version.
        already: plugins that were there before.
    """

    plugins: dict[str, str]
    changes: list[str]
    verdicts: list[Verdict]
    already: list[str]


def install(
    asked: Sequence[Request],
    kit: Callable[[str], Verdict],
    say: Callable[[str], None],
    upgrade: bool = False,
) -> Outcome:
    """Install what was asked for, all of it or nothing.

    Nothing is changed before every file that will be installed lies here and has been read. Then the
    journal is written, pip installs, and ``kit`` judges each plugin.

    Inputs:
        kit: runs the contract kit over an installed distribution.
        say: is told what is going on.

    Raises:
        UserError: if the environment cannot be changed, or what was asked for contradicts the catalogue.
        InstallFailed: if pip or the kit refuses; the environment is as it was before.
    """
    check_changeable()
    with locked() as lock, tempfile.TemporaryDirectory(prefix="modalign-") as folder:
        finish_interrupted(say)
        before = versions()
        try:
            ready = prepare(asked, before, Path(folder), lock, upgrade)
        except pip.PipFailed as error:
            raise InstallFailed(f"pip cannot install it next to what is here: {error}") from None
        if not ready.new:
            return Outcome({}, [], [], ready.already)
        changes = ready.changes(before)
        for line in changes:
            say(line)
        verdicts = _change(ready, lock, kit, say)
        plugins = {name: ready.new[name] for name in ready.plugins}
        return Outcome(plugins, changes, verdicts, ready.already)


def uninstall(names: Sequence[str], say: Callable[[str], None]) -> dict[str, str]:
    """Remove installed plugins, and nothing but plugins; none of their code is run.

    Returns what was removed, with versions.

    Raises:
        UserError: if one is not installed here, or is no plugin.
        InstallFailed: if pip refuses; the environment is as it was before.
    """
    check_changeable()
    with locked() as lock:
        finish_interrupted(say)
        removed = {name: _removable(name) for name in names}
        journal = journals.begin(f"uninstall {', '.join(removed)}", [], removed)
        with _put_back_on_failure(journal, say):
            pip.uninstall(removed, lock)
        return removed


def finish_interrupted(say: Callable[[str], None]) -> None:
    """Put back what a change that was cut short has left. To be called with the lock held.

    Raises:
        InstallFailed: if that is not possible.
    """
    try:
        journal = journals.pending()
    except (ValueError, TypeError, OSError) as error:
        raise InstallFailed(f"{journals.journal_file()} cannot be read: {error}") from None
    if journal is not None:
        say(f"`{journal.what}` was cut short; putting the environment back as it was before")
        _put_back(journal)


def _change(
    ready: Prepared, lock: int, kit: Callable[[str], Verdict], say: Callable[[str], None]
) -> list[Verdict]:
    what = ", ".join(f"{name} {ready.new[name]}" for name in ready.plugins)
    journal = journals.begin(f"install {what}", ready.planned(), ready.new)
    with _put_back_on_failure(journal, say):
        pip.install([wheel.path for wheel in ready.wheels], ready.folders.values(), lock)
        verdicts = []
        for name in ready.plugins:
            _check_is_a_plugin(name)
            say(f"checking {name} {ready.new[name]}")
            verdicts.append(kit(name))
        bad = [verdict for verdict in verdicts if not verdict.good]
        if bad:
            names = ", ".join(verdict.distribution for verdict in bad)
            raise InstallFailed(f"{names} does not keep the contract", verdicts)
        for verdict in verdicts:
            taken = reserved_elsewhere(verdict.distribution, verdict.offers)
            if taken:
                raise InstallFailed(f"{verdict.distribution} offers {taken}", verdicts)
        return verdicts


@contextmanager
def _put_back_on_failure(journal: Journal, say: Callable[[str], None]) -> Iterator[None]:
    """Commits the change at the end of the block, or undoes it whatever was raised there."""
    try:
        yield
    except BaseException as error:  # Ctrl-C too
        say("putting the environment back as it was before")
        _put_back(journal)
        if isinstance(error, pip.PipFailed):
            raise InstallFailed(f"pip failed: {error}") from error
        raise
    journals.commit()


def _put_back(journal: Journal) -> None:
    try:
        wrong = journals.roll_back(journal)
    except OSError as error:
        wrong = [str(error)]
    if wrong:
        raise InstallFailed(
            f"not everything could be put back: {'; '.join(wrong)}. "
            "The next `modalign plugins list` tries again"
        )


def _removable(name: str) -> str:
    distribution = own(name)
    if distribution is None:
        raise UserError(f"{name} is not installed in this environment. Run: modalign plugins list")
    if not distribution.entry_points.select(group=GROUP):
        raise UserError(f"{name} is no plugin of modalign. Run: pip uninstall {name}")
    if name == "modalign":
        raise UserError("modalign itself is no plugin. Run: pip uninstall modalign")
    return distribution.version


def _check_is_a_plugin(name: str) -> None:
    distribution = own(name)
    if distribution is None:
        raise InstallFailed(f"pip says it installed {name}, but it is not here")
    if not distribution.entry_points.select(group=GROUP):
        raise InstallFailed(f'{name} is no plugin: it has no entry point in the group "{GROUP}"')
