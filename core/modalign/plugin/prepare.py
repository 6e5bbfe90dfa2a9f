"""Gathers and reads every file of an installation before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.utils import canonicalize_name

from modalign.errors import UserError

from . import pip
from .discover import CORE, GROUP
from .environment import breakages, fixed, own
from .files import clashes
from .journal import files_of
from .requests import Request
from .wheel import Wheel, read_wheel, sha256


@dataclass(frozen=True)
class Prepared:
    """An installation that is ready to go.

    Inputs:
        new: every distribution it brings, with its version.
        plugins: those among them that were asked for.
        wheels, folders: what is copied, what is linked.
        already: what was asked for and is there.
    """

    new: dict[str, str]
    plugins: list[str]
    wheels: list[Wheel]
    folders: dict[str, Path]
    already: list[str]

    def planned(self) -> Iterable[tuple[str, str, Sequence[Path]]]:
        """As the journal wants it: distribution, version, files."""
        files = {wheel.name: wheel.files for wheel in self.wheels}
        return [(name, version, files.get(name, ())) for name, version in self.new.items()]

    def changes(self, before: dict[str, str]) -> list[str]:
        """One line for each distribution that is new or has another version."""
        return [
            f"{name} {before[name]} becomes {version}" if before.get(name, version) != version
            else f"{name} {version} is {'installed again' if name in before else 'new'}"
            for name, version in sorted(self.new.items())
        ]  # fmt: skip


def prepare(
    asked: Sequence[Request], before: dict[str, str], folder: Path, lock: int, upgrade: bool
) -> Prepared:
    """Resolve, download, build and read everything; the environment stays as it is.

    Inputs:
        before: what is installed.
        folder: for the wheels.

    Raises:
        PipFailed: if there is no solution, or a file cannot be had or built.
        UserError: if a file is damaged, is not the one that the catalogue pins, or would harm others.
    """
    local = {r.label: _wheel_of(r, folder, lock) for r in asked if not r.wanted and not r.editable}
    wanted = [str(wheel.path) for wheel in local.values()]
    wanted += [r.wanted for r in asked if r.wanted]
    wanted += [word for r in asked if r.editable for word in ("--editable", str(r.folder))]
    choices = {c.name: c for c in pip.resolve(wanted, fixed(before), lock, upgrade)}
    names = {r.label: local[r.label].name if r.label in local else _name(r, choices) for r in asked}
    for request in asked:
        _check_pin(request, choices.get(names[request.label]))
    fetched = _fetch(choices, {wheel.name for wheel in local.values()}, set(names.values()), folder, lock)
    wheels = [*(wheel for wheel in local.values() if wheel.name in choices), *fetched]
    new = {name: choice.version for name, choice in choices.items()}
    broken = breakages(before, {**before, **new})
    if broken:
        raise UserError(f"it would break what is here: {'; '.join(broken)}")
    for wheel in wheels:
        _check_harmless(wheel, new, plugin=wheel.name in names.values())
    linked = {names[r.label]: r.folder for r in asked if r.editable and r.folder}
    return Prepared(
        new,
        [name for name in names.values() if name in new],
        wheels,
        linked,
        [f"{name} {before[name]}" for name in names.values() if name not in new],
    )


def _wheel_of(request: Request, folder: Path, lock: int) -> Wheel:
    if request.wheel is not None:
        return read_wheel(request.wheel)
    assert request.folder is not None
    return read_wheel(pip.build(request.folder, folder, lock))


def _name(request: Request, choices: dict[str, pip.Choice]) -> str:
    if request.wanted:
        return canonicalize_name(request.label)
    for choice in choices.values():
        if choice.editable and Path(unquote(urlparse(choice.url).path)) == request.folder:
            return choice.name
    raise UserError(f"{request.label}: pip does not say what it is called")


def _check_pin(request: Request, choice: pip.Choice | None) -> None:
    if choice is None or request.sha256 is None:
        return
    found = sha256(request.wheel) if request.wheel else choice.sha256
    if found != request.sha256:
        raise UserError(
            f"{request.label} {choice.version} from {request.wheel or choice.url} is not the file that the "
            f"catalogue pins: its SHA-256 is {found}, expected {request.sha256}. Do not install it"
        )


def _fetch(
    choices: dict[str, pip.Choice], local: set[str], asked: set[str], folder: Path, lock: int
) -> list[Wheel]:
    """The wheels of everything that is not on this machine."""
    rest = [c for c in choices.values() if c.name not in local and not c.editable]
    for choice in rest:
        if choice.direct and choice.name not in asked:
            raise UserError(
                f"it wants {choice.name} from {choice.url}, which nobody asked for; only an index may"
            )
    into = folder / "fetched"
    into.mkdir()
    pip.collect(rest, into, lock)
    found = [read_wheel(path) for path in sorted(into.glob("*.whl"))]
    missing = {(c.name, c.version) for c in rest} - {(w.name, w.version) for w in found}
    if missing:
        raise UserError(f"pip did not give {', '.join(f'{n} {v}' for n, v in sorted(missing))}")
    return found


def _check_harmless(wheel: Wheel, new: dict[str, str], plugin: bool) -> None:
    """That a wheel overwrites nothing of anybody else, and that a plugin is one."""
    replaced = [found for name in new if (found := own(name)) is not None]
    taken = clashes(wheel.files, [file for each in replaced for file in files_of(each)])
    if taken:
        raise UserError(f"{wheel.path.name} would overwrite {taken[0]}, which belongs to something else")
    if plugin and wheel.name == CORE:
        raise UserError("modalign itself is no plugin. Run: pip install --upgrade modalign")
    if plugin and GROUP not in wheel.groups:
        raise UserError(f'{wheel.name} is no plugin: it has no entry point in the group "{GROUP}"')
