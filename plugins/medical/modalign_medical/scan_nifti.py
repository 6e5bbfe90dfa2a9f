"""One slice of a NIfTI volume as an upright grey picture; nothing of its header is kept."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import nibabel
import numpy as np
from modalign import BadSample
from nibabel.orientations import aff2axcodes

from .files import unpacked
from .scan_view import PLANES, chosen, direction, hung
from .scan_window import WINDOWS, Window, stretched, windowed

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)  # it prints header values

_HEADER = 540  # bytes of the larger of the two headers
_SHARE = 0.005  # of a slice without a given range that may be beyond black and white
_NORMAL = {"axial": "SI", "coronal": "AP", "sagittal": "LR"}


def is_nifti(data: bytes) -> bool:
    """Whether it is a NIfTI-1 or NIfTI-2 file, or a gzip file, which holds one if anything."""
    return data[:2] == b"\x1f\x8b" or _magic(data)


def _magic(data: bytes) -> bool:
    return data[344:348] in (b"n+1\0", b"ni1\0") or data[4:8] in (b"n+2\0", b"ni2\0")


def read_nifti(
    data: bytes,
    plane: str,
    frame: str | int | float,
    window: Window,
    orient: bool,
    max_pixels: int,
    max_bytes: int,
) -> tuple[np.ndarray, float]:
    """A slice as uint8 ``(H, W)``, and how many times as high as wide a pixel is.

    Inputs:
        plane, frame, window, orient, max_pixels, max_bytes: as in ``Scan``.

    Raises:
        BadSample: if it is damaged, too large (before it is unpacked), or no volume.
    """
    if data[:2] == b"\x1f\x8b":
        start = unpacked_start(data)
        if not _magic(start):
            raise BadSample("a compressed file that is no NIfTI volume")
        data = unpacked(data, _promised(start, max_bytes))  # whatever follows the volume stays packed
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            _promised(data[:_HEADER], max_bytes)
            return _slice(data, plane, frame, window, orient, max_pixels)
    except BadSample:
        raise
    except MemoryError:
        raise BadSample("the volume asks for more memory than there is") from None
    except Exception as error:  # nibabel raises nearly everything; its words may repeat the header
        raise BadSample(f"not a readable NIfTI volume ({type(error).__name__})") from None


def unpacked_start(data: bytes) -> bytes:
    """The first bytes of a gzip file, as many as a header has."""
    return unpacked(data[: 1 << 16], _HEADER) if len(data) > 1 << 16 else unpacked(data, _HEADER)


def _promised(start: bytes, max_bytes: int) -> int:
    """How many bytes a file of this header has; refuses more than the limit."""
    image = _kind(start)
    try:
        header = image.header_class.from_fileobj(io.BytesIO(start), check=False)
        size = int(np.prod([max(1, int(n)) for n in header.get_data_shape()], dtype=object))
        size = size * header.get_data_dtype().itemsize + int(header["vox_offset"])
    except Exception as error:
        raise BadSample(f"not a readable NIfTI volume ({type(error).__name__})") from None
    if not 0 < size <= max_bytes:
        raise BadSample(f"a volume of {size} bytes; max_bytes is {max_bytes}")
    return size


def _kind(data: bytes) -> Any:
    return nibabel.Nifti2Image if data[4:8] in (b"n+2\0", b"ni2\0") else nibabel.Nifti1Image


def _slice(
    data: bytes, plane: str, frame: str | int | float, window: Window, orient: bool, max_pixels: int
) -> tuple[np.ndarray, float]:
    image = _kind(data).from_bytes(data)
    shape = image.shape
    if not 2 <= len(shape) <= 7 or min(shape) < 1:
        raise BadSample("not a volume of 2 to 7 dimensions")
    codes = aff2axcodes(image.affine)
    depth, height, width = _axes(codes, plane)
    at: list[int | slice] = [0] * len(shape)  # the first of several times
    size = [*shape[:3], 1][:3]
    if len(shape) == 2:
        depth, height, width = 2, 1, 0
    at[height], at[width] = slice(None), slice(None)
    if size[height] * size[width] > max_pixels:
        raise BadSample(f"{size[width]} x {size[height]} pixels; max_pixels is {max_pixels}")
    if len(shape) > 2:
        at[depth] = _where(frame, size[depth], codes[depth])
    values = np.asanyarray(image.dataobj[tuple(at)])  # the two axes in the order of the file
    if values.dtype.fields is not None or np.iscomplexobj(values):
        raise BadSample("its values are not single grey values")
    if height > width:
        values = values.T  # (H, W)
    picture = _grey(values, image, window)
    zooms = [float(z) for z in image.header.get_zooms()[:3]] + [1.0]
    aspect = zooms[height] / zooms[width] if zooms[width] > 0 else 1.0
    aspect = aspect if 0.05 < aspect < 20 else 1.0
    if orient:
        letters = [_letter(code) for code in codes]
        picture, swapped = hung(picture, direction(letters[width]), direction(letters[height]))
        aspect = 1 / aspect if swapped else aspect
    return picture, aspect


def _axes(codes: tuple, plane: str) -> tuple[int, int, int]:
    """Which array axis goes through the plane, and which two lie in it, the later one downwards."""
    wanted = _NORMAL[plane]
    depth = next((i for i, c in enumerate(codes) if c is not None and c in wanted), 2 - PLANES.index(plane))
    first, second = (i for i in range(3) if i != depth)
    return depth, second, first


def _where(frame: str | int | float, count: int, code: str | None) -> int:
    """Slices count from the feet, the back or the right, whichever way the file stores them."""
    number = chosen(frame, count)
    return count - 1 - number if code in ("I", "P", "R") else number


def _letter(code: str | None) -> str:
    return {"S": "H", "I": "F"}.get(code or "", code or "")


def _grey(values: np.ndarray, image: nibabel.Nifti1Image, window: Window) -> np.ndarray:
    if window == "range":
        return stretched(values)
    if isinstance(window, str) and window in WINDOWS:
        return windowed(values, *WINDOWS[window])
    if not isinstance(window, str | int):
        return windowed(values, float(window[0]), float(window[1]))
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    if np.isfinite([low, high]).all() and high > low:
        return windowed(values, (low + high) / 2, high - low, "LINEAR_EXACT")
    return stretched(values, share=_SHARE)
