"""Where the samples of a tar archive lie: found once, kept beside the feature cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modalign.errors import UserError
from modalign.plain_array import map_array

from ..feature_cache import cache_folder
from ..folder_table import split_name

log = logging.getLogger("modalign")
MOST_BYTES = 1 << 30
"""Of one member; larger ones are left out, with a warning."""
MOST_ENDINGS = 64
META = re.compile(r"__[^/]*__(/|$)")
"""Names of files that are about an archive, no samples of it."""
FORM = 2
_keeping = ContextVar("_keeping", default=True)


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Inside, what is found in archives is not written to disk."""
    before = _keeping.set(False)
    try:
        yield
    finally:
        _keeping.reset(before)


@dataclass(frozen=True)
class TarIndex:
    """Samples of an archive: its files, grouped as WebDataset does, by what precedes the first full stop.

    Inputs:
        endings: what follows it: the columns.
        places: ``(samples, endings, 2)`` int64: offset and size in bytes; offset -1 where there is no file.
    """

    endings: list[str]
    places: np.ndarray


def tar_index(path: Path) -> TarIndex:
    """The index of an archive, from the cache if the file is still the same.

    Raises:
        UserError: if it is damaged, compressed or holds no samples.
    """
    stat = path.stat()
    about = f"{FORM} {path.absolute()} {stat.st_size} {stat.st_mtime_ns}"
    stem = cache_folder().parent / "shards" / hashlib.blake2b(about.encode(), digest_size=16).hexdigest()
    try:
        endings = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        index = TarIndex(endings, map_array(stem.with_suffix(".npy")))
        if _fits(index, stat.st_size):
            return index
    except (OSError, ValueError, RecursionError):
        pass
    index = scan(path)
    try:
        if _keeping.get():
            _keep(stem, index)
    except OSError as error:
        log.warning("the index of %s could not be kept and will be made again: %s", path.name, error)
    return index


def _fits(index: TarIndex, size: int) -> bool:
    """Whether a kept index can be one of an archive of that many bytes."""
    endings, places = index.endings, index.places
    if not isinstance(endings, list) or not all(isinstance(e, str) and len(e) < 256 for e in endings):
        return False
    if (
        places.dtype != np.int64
        or places.ndim != 3
        or places.shape[1:] != (len(endings), 2)
        or not places.size
    ):
        return False
    offsets, sizes = places[..., 0], places[..., 1]
    there = offsets >= 0
    within = (sizes >= 0) & (sizes <= min(size, MOST_BYTES)) & (offsets <= size - sizes)
    return bool(places.size) and bool((within | ~there).all())


def scan(path: Path) -> TarIndex:
    """Read the headers of an archive; only regular files count, and nothing is unpacked."""
    size = path.stat().st_size
    samples: list[dict[str, tuple[int, int]]] = []
    before: str | None = None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # or it would keep them all
                folder, _, name = member.name.rpartition("/")
                stem, ending = split_name(name)
                if not stem or not ending:
                    continue
                if not member.isreg() or member.issparse() or META.match(member.name):
                    continue
                if member.size < 0 or member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} ends beyond the file")
                if member.size > MOST_BYTES:
                    log.warning("%s: %s is larger than 1 GiB and left out", path.name, member.name)
                    continue
                key = f"{folder}/{stem}"
                if key != before:
                    samples.append({})
                    before = key
                if ending in samples[-1]:
                    raise tarfile.ReadError(f"it holds {member.name} twice")
                samples[-1][ending] = (member.offset_data, member.size)
            _check_end(path, archive.offset)  # type: ignore[attr-defined]
    except (tarfile.TarError, OSError, ValueError, EOFError, ArithmeticError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path.name}: not a whole, uncompressed tar archive (damaged after {len(samples)} samples: "
            f"{reason}); fetch it again, or take it out"
        ) from None
    endings = sorted({ending for sample in samples for ending in sample})
    if not endings:
        raise UserError(f"{path.name} holds no samples: files such as 0001.png and 0001.txt")
    if len(endings) > MOST_ENDINGS:
        some = ", ".join(endings[:5])
        raise UserError(
            f"{path.name}: its files have {len(endings)} different endings ({some}, …), more than "
            f"{MOST_ENDINGS}; samples are named as 0001.png, 0001.txt"
        )
    places = np.full((len(samples), len(endings), 2), -1, dtype=np.int64)
    for i, sample in enumerate(samples):
        for j, ending in enumerate(endings):
            if ending in sample:
                places[i, j] = sample[ending]
    return TarIndex(endings, places)


def _check_end(path: Path, offset: int) -> None:
    """That nothing but zeros follows the last member: ``tarfile`` ends without a word at a damaged header."""
    ended = False
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            if block.count(0) != len(block):
                raise tarfile.ReadError("a damaged header, or more after its end")
            ended = True
    if not ended:
        raise tarfile.ReadError("it has no end: is it cut off?")


def _keep(stem: Path, index: TarIndex) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    part = stem.with_name(f".{uuid.uuid4().hex}.npy")
    np.save(part, index.places, allow_pickle=False)
    os.replace(part, stem.with_suffix(".npy"))
    part.write_text(json.dumps(index.endings), encoding="utf-8")
    os.replace(part, stem.with_suffix(".json"))
