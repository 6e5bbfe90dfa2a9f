"""Features of frozen encoders on disk: computed once per sample over all runs."""

from __future__ import annotations

import json
import os
import shutil
import struct
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RECORD = struct.Struct("<16sQIIII")  # key, offset, T, W, crc of the data, crc of the record so far
SHARD, INDEX, ABOUT = ".bin", ".idx", "about.json"


def cache_folder() -> Path:
    """``$MODALIGN_CACHE``, or ``modalign`` below the user's cache folder."""
    home = os.environ.get("MODALIGN_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home) if home else base / "modalign") / "features"


class FeatureCache:
    """Token features ``(T, W)`` of one encoder, by content key; memory-mapped.

    Every writer appends to a shard of its own: data first, then a record of fixed size with
    checksums. So writers need no lock, readers see only whole entries, and a process killed in the
    middle leaves at most a tail that is ignored.

    Inputs:
        name: the folder: whatever the features depend on, hashed.
        about: what ``modalign doctor`` shows of it.
    """

    def __init__(self, name: str, about: dict[str, Any] | None = None, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / name
        self.about = about or {}
        self._entries: dict[bytes, tuple[Path, int, int, int, int]] = {}
        self._read: dict[Path, int] = {}
        self._maps: dict[Path, np.ndarray] = {}
        self._trusted: set[bytes] = set()
        self._shard: Path | None = None
        self.refresh()

    def refresh(self) -> None:
        """See what other processes have written since."""
        for index in sorted(self.folder.glob(f"*{INDEX}")):
            shard = index.with_suffix(SHARD)
            with index.open("rb") as file:
                file.seek(self._read.get(index, 0))
                data = file.read()
            size = shard.stat().st_size if shard.is_file() else 0  # after the index: data come first
            whole = len(data) - len(data) % RECORD.size
            self._read[index] = self._read.get(index, 0) + whole
            for start in range(0, whole, RECORD.size):
                record = data[start : start + RECORD.size]
                key, offset, t, w, crc, check = RECORD.unpack(record)
                if zlib.crc32(record[:-4]) == check and offset + 4 * t * w <= size:
                    self._entries.setdefault(key, (shard, offset, t, w, crc))

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> np.ndarray | None:
        """``(T, W)`` float32, read-only; None if absent or damaged."""
        found = self.where(key)
        if found is None:
            return None
        shard, offset, t, w = found
        return self._maps[shard][offset : offset + 4 * t * w].view(np.float32).reshape(t, w)

    def where(self, key: bytes) -> tuple[Path, int, int, int] | None:
        """Shard, offset in bytes, ``T`` and ``W`` of an entry that is whole; None if absent or damaged."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        shard, offset, t, w, crc = entry
        if key not in self._trusted:
            try:
                data = self.mapped(shard, offset + 4 * t * w)[offset : offset + 4 * t * w]
            except (OSError, ValueError):  # cleared by somebody else
                data = np.empty(0, np.uint8)
            if len(data) < 4 * t * w or zlib.crc32(data.data) != crc:
                del self._entries[key]
                return None
            self._trusted.add(key)
        return shard, offset, t, w

    def mapped(self, shard: Path, size: int = 0) -> np.ndarray:
        """All bytes of a shard, at least so many if the file has them; read-only."""
        mapped = self._maps.get(shard)
        if mapped is None or len(mapped) < size:
            # A plain array: slices of np.memmap are slow.
            mapped = self._maps[shard] = np.asarray(np.memmap(shard, mode="r", dtype=np.uint8))
        return mapped

    def size(self) -> int:
        """Bytes on disk."""
        return folder_size(self.folder)

    def put(self, entries: dict[bytes, Tensor]) -> None:
        """Add features ``(T, W)`` by key; keys already there are left as they are.

        Raises:
            OSError: if they cannot be written; what is there already stays whole.
        """
        new = {k: v for k, v in entries.items() if k not in self._entries}
        if not new:
            return
        try:
            self._append(new)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: the feature cache {self.folder} cannot be written. "
                "Make room there, or set MODALIGN_CACHE to another folder",
            ) from error
        self.refresh()

    def _append(self, new: dict[bytes, Tensor]) -> None:
        if self._shard is None or not self._shard.parent.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f".{uuid.uuid4().hex}.part"
            part.write_text(json.dumps(self.about))
            os.replace(part, self.folder / ABOUT)
            self._shard = self.folder / f"{uuid.uuid4().hex}{SHARD}"
        records = []
        with self._shard.open("ab") as file:
            for key, tokens in new.items():
                data = tokens.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
                head = RECORD.pack(key, file.tell(), *tokens.shape, zlib.crc32(data), 0)[:-4]
                records.append(head + struct.pack("<I", zlib.crc32(head)))
                file.write(data)
        with self._shard.with_suffix(INDEX).open("ab") as file:
            file.write(b"".join(records))


def folder_size(folder: Path) -> int:
    """Bytes of all files directly in a folder; 0 if there is none."""
    return sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def cache_report() -> list[dict[str, Any]]:
    """One row per encoder: what it is, its entries and bytes on disk."""
    rows = []
    for about in sorted(cache_folder().glob(f"*/{ABOUT}")):
        folder = about.parent
        indexes = sum(f.stat().st_size for f in folder.glob(f"*{INDEX}"))
        try:
            known = json.loads(about.read_text())
        except (OSError, ValueError):
            known = {}
        rows.append(
            {
                "name": known.get("encoder", folder.name),
                "modality": known.get("modality", ""),
                "entries": indexes // RECORD.size,
                "bytes": folder_size(folder),
            }
        )
    return rows


def clear_cache() -> int:
    """Delete every cached feature; returns the bytes freed."""
    freed = 0
    for folder in [about.parent for about in cache_folder().glob(f"*/{ABOUT}")]:
        freed += folder_size(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return freed
