"""One big graph from an npz file: sparse features of nodes, edges, communities."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from modalign import UserError

from .communities import keep_weights

MAX_BYTES = 1 << 29
"""Of all arrays together, unpacked; checked before anything is unpacked."""
MAX_WIDTH = 1 << 22
"""Features, for each of which communities need some memory, whether a node has it or not."""
_KNOWN = ("indptr", "indices", "data", "shape", "features", "edges")


@dataclass(frozen=True)
class BigGraph:
    """Nodes with sparse features, and undirected edges.

    Inputs:
        starts, words, values: features in compressed rows: node ``i`` has the features
            ``words[starts[i]:starts[i + 1]]`` with these values.
        width: number of features, ``F``.
        edges: ``(E, 2)``, each once, no loops.
    """

    starts: np.ndarray
    words: np.ndarray
    values: np.ndarray
    width: int
    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def adjacency(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each node's neighbours start, the neighbours, and the edges that lead to them."""
        ends = np.concatenate([self.edges, self.edges[:, ::-1]])  # (2E, 2)
        number = np.tile(np.arange(len(self.edges)), 2)  # (2E,)
        order = np.lexsort((ends[:, 1], ends[:, 0]))
        starts = np.searchsorted(ends[order, 0], np.arange(len(self) + 1))
        return starts, ends[order, 1], number[order]

    @cached_property
    def community_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each edge ``(E,)`` and each feature ``(F,)``: how likely a view leaves it out, on average 1."""
        node = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return keep_weights(len(self), self.edges, node, self.words, np.abs(self.values), self.width)


def load_graph(path: str) -> BigGraph:
    """The graph in a file, read once per process.

    Raises:
        UserError: if there is no such file, or it is not as the README describes.
    """
    try:
        about = Path(path).stat()
    except OSError as error:
        raise UserError(f"node: cannot read the graph {path}: {error.strerror or error}") from None
    return _load(path, about.st_mtime_ns, about.st_size)


def digest(path: str) -> str:
    """Changes with the file's content.

    Raises:
        UserError: if there is no such file.
    """
    try:
        with open(path, "rb") as file:
            return (
                hashlib.file_digest(file, "sha256").hexdigest()
                if hasattr(hashlib, "file_digest")
                else hashlib.sha256(file.read()).hexdigest()
            )
    except OSError as error:
        raise UserError(f"node: cannot read the graph {path}: {error.strerror or error}") from None


@lru_cache(maxsize=4)
def _load(path: str, changed: int, size: int) -> BigGraph:
    try:
        return _graph(_arrays(path))
    except _Wrong as error:
        raise UserError(f"node: {Path(path).name} is no graph: {error}. {_FORMAT}") from None


class _Wrong(ValueError):
    """What is wrong with the file."""


def _arrays(path: str) -> dict[str, np.ndarray]:
    """The known arrays of an npz file, of plain numbers and of the size their headers claim."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            found = {name: members[name] for name in _KNOWN if name in members}
            if sum(info.file_size for info in found.values()) > MAX_BYTES:
                raise _Wrong(f"its arrays are larger than {MAX_BYTES >> 20} MB")
            return {name: _array(archive, info) for name, info in found.items()}
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
    ) as error:
        raise _Wrong(f"not a readable npz file ({type(error).__name__})") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    form = np.lib.format
    with archive.open(info) as file:
        try:
            version = form.read_magic(file)
            read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
            shape, fortran, kind = read(file)
        except Exception:  # the header is a Python literal: its parser raises whatever the damage leads to
            raise _Wrong(f"{info.filename} is damaged") from None
        if kind.kind not in "iufb" or len(shape) > 2 or min(shape, default=1) < 0:
            raise _Wrong(f"{info.filename} holds no table of numbers")
        count = int(np.prod([int(s) for s in shape], dtype=object)) if shape else 1
        if count * kind.itemsize > info.file_size:
            raise _Wrong(f"{info.filename} is cut short")
        raw = file.read(count * kind.itemsize)
        if len(raw) < count * kind.itemsize:
            raise _Wrong(f"{info.filename} is cut short")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


def _graph(arrays: dict[str, np.ndarray]) -> BigGraph:
    if "features" in arrays:
        dense = _table(arrays["features"], "features", None)
        n, width = dense.shape
        rows, words = np.nonzero(dense)
        starts = np.searchsorted(rows, np.arange(n + 1))
        values = dense[rows, words]
    else:
        missing = [name for name in ("indptr", "indices", "shape") if name not in arrays]
        if missing:
            raise _Wrong(f"it lacks {missing[0]}")
        if arrays["shape"].shape != (2,):
            raise _Wrong("shape is not two numbers")
        n, width = (int(x) for x in _whole(arrays["shape"], "shape", 1 << 40))
        if width > MAX_WIDTH:
            raise _Wrong(f"{width:,} features; the limit is {MAX_WIDTH:,}")
        starts = _whole(arrays["indptr"], "indptr", len(arrays["indices"]))
        words = _whole(arrays["indices"], "indices", width - 1)
        if len(starts) != n + 1 or starts[0] != 0 or starts[-1] != len(words) or (np.diff(starts) < 0).any():
            raise _Wrong("indptr does not fit indices and shape")
        values = arrays.get("data", np.ones(len(words), np.float32))
        if values.shape != words.shape:
            raise _Wrong("data does not fit indices")
    if not n or not width:
        raise _Wrong("it has no nodes or no features")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise _Wrong("a feature is not a finite number")
    if "edges" not in arrays:
        raise _Wrong("it lacks edges")
    edges = _whole(_table(arrays["edges"], "edges", 2), "edges", n - 1)
    edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], 1), axis=0)  # (E, 2)
    return BigGraph(starts.astype(np.int64), words.astype(np.int64), values, width, edges)


def _table(array: np.ndarray, name: str, columns: int | None) -> np.ndarray:
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns):
        raise _Wrong(f"{name} has shape {array.shape}")
    return array


def _whole(array: np.ndarray, name: str, largest: int) -> np.ndarray:
    """Whole numbers from 0 to ``largest``, as int64."""
    if array.dtype.kind not in "iu" or (name != "edges" and array.ndim != 1):
        raise _Wrong(f"{name} holds no whole numbers")
    if array.size and (array.min() < 0 or array.max() > largest):
        raise _Wrong(f"{name} has numbers outside 0..{largest}")
    return array.astype(np.int64)


_FORMAT = (
    "Save one with numpy.savez(path, features=(V, F) or indptr=, indices=, shape= of a scipy csr_matrix, "
    "edges=(E, 2))"
)
