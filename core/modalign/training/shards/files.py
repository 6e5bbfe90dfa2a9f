"""Which files a plan's pattern of shards names."""

from __future__ import annotations

import glob
import itertools
import os
import re
from pathlib import Path

from modalign.errors import UserError, short, suggest

from ..table_files import READERS, expanded

TAR = ".tar"
MOST_FILES = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")


def is_shards(path: str) -> bool:
    """Whether a plan's path names shards: a pattern of files, or a tar archive."""
    return path.endswith(TAR) or any(c in path for c in "*?[") or bool(BRACES.search(_bare(path)))


def shard_files(path: str, folder: Path) -> list[Path]:
    """Every file that a pattern names, in order.

    Inputs:
        path: with ``*``, ``?``, ``[ab]``, ``**``, ``{0000..0099}`` or ``{a,b}``; relative to ``folder``.

    Raises:
        UserError: if there is none, or one is of a kind that cannot be read.
    """
    whole = expanded(path)
    files: list[Path] = []
    for one in unfold(whole):
        exact = folder / one
        if len(os.fsencode(one)) >= 4096 or any(len(os.fsencode(part)) > 255 for part in exact.parts):
            raise UserError(f"no file matches {short(path)}: the name is too long")
        found = (
            [exact]
            if exact.is_file()
            else [folder / f for f in sorted(glob.glob(one, root_dir=folder, recursive=True))]
        )
        files += [f for f in found if f.is_file()]
        if not found and one != whole:
            raise UserError(f"there is no file {one}, which {path} names (looked for {exact})")
    if not files:
        where = (folder / whole).parent
        there = [p.name for p in where.iterdir()] if where.is_dir() else []
        raise UserError(f"no file matches {path} (looked in {where}){suggest(Path(whole).name, there)}")
    for file in files:
        if file.suffix.lower() not in (TAR, *READERS):
            raise UserError(f"{file.name}: shards are {', '.join((TAR, *READERS))} files, uncompressed")
    return files


def unfold(path: str) -> list[str]:
    """``a-{08..10}.tar`` -> ``a-08.tar``, ``a-09.tar``, ``a-10.tar``; ``{x,y}`` -> both.

    Raises:
        UserError: if that were more than ``MOST_FILES``.
    """
    parts = BRACES.split(path)
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_FILES:
        raise UserError(f"{path} names {count:,} files, more than {MOST_FILES:,}")
    return ["".join(words) for words in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if ends is None:
        return inside.split(",")
    first, last = ends.groups()
    if int(last) - int(first) > MOST_FILES:
        raise UserError(f"{{{inside}}} names more than {MOST_FILES:,} files")
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def _bare(path: str) -> str:
    """Without ``${VARIABLE}``, whose braces are no pattern."""
    return re.sub(r"\$\{\w+\}", "", path)
