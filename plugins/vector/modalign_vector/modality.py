"""The vector modality: numbers in, one row of a batch out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from modalign import BadSample, Modality, UserError, file_bytes
from modalign.contracts import Batch
from torch import Tensor

WIDEST = 1 << 20
"""Numbers in a vector."""
_HEADER = 1 << 16
"""Bytes of a ``.npy`` file before its numbers, at most."""


class Vector(Modality):
    """A list of numbers, an array, or a ``.npy`` file of one, such as another model's features.

    Inputs:
        width: ``W``, the numbers in every vector; encoders ask for it. None: any, the same in a batch.

    Raises:
        UserError: if the width is no whole number from 1 to 1,048,576.
    """

    name: ClassVar[str] = "vector"

    def __init__(self, width: int | None = None) -> None:
        if width is not None and (type(width) is not int or not 1 <= width <= WIDEST):
            raise UserError(f"vector: width is {width!r}; use the length of the vectors, 1 to {WIDEST}")
        self.width = width

    def read(self, value: Any) -> Tensor:
        """Numbers, or a ``.npy`` file of them (a path, or its bytes) -> ``(W,)`` float32.

        Raises:
            BadSample: if they are no numbers, not finite in float32, or another number of them.
        """
        if isinstance(value, str | Path | bytes | bytearray | memoryview):
            array = _npy(self._content(value))
        else:
            array = _array(value)
        width = self.width or len(array.reshape(-1))
        if array.shape != (width,) or not 1 <= width <= WIDEST:
            raise BadSample(f"expected {self.width or 'some'} numbers, got {_shape(array.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):
            vector = array.astype(np.float32)  # (W,)
        if not np.isfinite(vector).all():
            at = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise BadSample(f"number {at + 1} of {width} is {array[at]}, which is not finite in float32")
        return torch.from_numpy(vector)

    def _content(self, value: Any) -> bytes:
        width = self.width or WIDEST
        if isinstance(value, str | Path) and (path := Path(value)).is_file():
            size = path.stat().st_size
            if size > _HEADER + 16 * width:
                raise BadSample(f"a file of {size} bytes is no vector of {width} numbers")
        return file_bytes(value)

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """``N`` vectors -> ``vectors (N, W)``.

        Raises:
            UserError: if they have several widths, and the plan names none.
        """
        widths = sorted({len(item) for item in items})
        if len(widths) > 1:
            raise UserError(
                f"vectors of {widths[0]} and of {widths[-1]} numbers: name one with read: {{width}}"
            )
        return {"vectors": torch.stack(list(items))}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """Normal numbers."""
        generator = torch.Generator().manual_seed(seed)
        return list(torch.randn(n, self.width or 8, generator=generator))


def _array(value: Any) -> np.ndarray:
    """A literal, an array or a tensor as an array of real numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise BadSample("expected a list of numbers") from None
    if array.dtype.kind not in "iuf":
        raise BadSample(f"expected a list of numbers, got {type(value).__name__} of {array.dtype.name}")
    return array


def _npy(content: bytes) -> np.ndarray:
    """A ``.npy`` file's array; nothing in it is run, and its header is not believed."""
    form, file = np.lib.format, io.BytesIO(content)
    try:
        old = form.read_magic(file) == (1, 0)
        shape, _, kind = (form.read_array_header_1_0 if old else form.read_array_header_2_0)(file)
    except Exception as error:  # what NumPy evaluates may fail in any way
        raise BadSample(f"not a readable .npy file ({type(error).__name__})") from None
    if kind.kind not in "iuf":
        raise BadSample(f"a .npy file of {kind.name}; numbers are needed")
    if len(shape) != 1 or shape[0] * kind.itemsize != len(content) - file.tell():
        raise BadSample(f"a .npy file whose header says {_shape(shape)}, which is not what follows it")
    return np.frombuffer(content, kind, shape[0], file.tell())


def _shape(shape: Sequence[int]) -> str:
    text = " x ".join(map(str, shape))
    return (f"{text} numbers" if text else "one alone")[:100]
