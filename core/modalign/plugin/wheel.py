"""Reads a wheel before it is installed: whole, harmless to others, and which files it brings."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from modalign.errors import UserError

from .environment import paths


@dataclass(frozen=True)
class Wheel:
    """A wheel that has been found whole.

    Inputs:
        files: where its files will be, absolute.
        groups: the groups of its entry points.
    """

    path: Path
    name: str
    version: str
    requires: tuple[str, ...]
    files: tuple[Path, ...]
    groups: frozenset[str]


def read_wheel(path: Path) -> Wheel:
    """A wheel, every byte of it compared with its own record.

    Raises:
        UserError: if it is damaged, or would write outside of the environment.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            info = _info_folder(names)
            _check_record(archive, names, info)
            about = Parser().parsestr(archive.read(f"{info}/METADATA").decode("utf-8"))
            wheel = Parser().parsestr(archive.read(f"{info}/WHEEL").decode("utf-8"))
            points = configparser.ConfigParser(delimiters="=", interpolation=None)
            points.optionxform = str  # type: ignore[assignment, method-assign]
            if f"{info}/entry_points.txt" in names:
                points.read_string(archive.read(f"{info}/entry_points.txt").decode("utf-8"))
        name = canonicalize_name(about["Name"])
        pure = wheel["Root-Is-Purelib"].strip().lower() == "true"
        files = {_target(each, name, pure) for each in names} | set(_scripts(points))
        files |= {
            _target(f"{info}/{each}", name, pure) for each in ("INSTALLER", "REQUESTED", "direct_url.json")
        }
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path.name} is damaged: {error}") from None
    except (configparser.Error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path.name} is damaged: {error}") from None
    requires = tuple(about.get_all("Requires-Dist") or ())
    return Wheel(path, name, about["Version"], requires, tuple(sorted(files)), frozenset(points.sections()))


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _info_folder(names: list[str]) -> str:
    found = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        raise ValueError(f"it holds {len(found)} .dist-info folders, expected one")
    return found.pop()


def _check_record(archive: zipfile.ZipFile, names: list[str], info: str) -> None:
    record = f"{info}/RECORD"
    rows = csv.reader(io.StringIO(archive.read(record).decode("utf-8")))
    recorded = {row[0]: row[1] for row in rows if row}
    for name in names:
        if name in (record, f"{record}.jws", f"{record}.p7s"):
            continue
        algorithm, _, expected = recorded.get(name, "").partition("=")
        digest = hashlib.new(algorithm if algorithm in ("sha384", "sha512") else "sha256")
        with archive.open(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if expected and found != expected:
            raise ValueError(f"{name} is not what its record says")


def _target(name: str, distribution: str, pure: bool) -> Path:
    """Where the installer puts the file ``name`` of the archive."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise ValueError(f"it would write to {name}")
    where = paths()
    if not parts[0].endswith(".data"):
        return where["purelib" if pure else "platlib"].joinpath(*parts)
    base = where[parts[1]]
    return (base / distribution if parts[1] == "headers" else base).joinpath(*parts[2:])


def _scripts(points: configparser.ConfigParser) -> list[Path]:
    names = [
        name
        for group in ("console_scripts", "gui_scripts")
        if points.has_section(group)
        for name in points[group]
    ]
    folder = paths()["scripts"]
    return [folder / f"{name}{suffix}" for name in names for suffix in ("", ".exe")]
