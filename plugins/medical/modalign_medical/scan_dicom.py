"""One frame of a DICOM file as an upright grey or RGB picture; every name and date is dropped."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import numpy as np
import pydicom
from modalign import BadSample
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

from .files import unpacks_to_more
from .scan_dicom_header import TAGS, Header, aspect_of, directions
from .scan_view import chosen, hung
from .scan_window import WINDOWS, Window, stretched, windowed

logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False  # its messages repeat header values

_DEFLATED, _RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_MOST_RLE = 8 * 2**20  # bytes of a run-length frame, which may unpack to 64 times as many


def is_dicom(data: bytes) -> bool:
    """Whether it starts as a DICOM file does, after 128 bytes of anything."""
    return data[128:132] == b"DICM"


def read_dicom(
    data: bytes, frame: str | int | float, window: Window, orient: bool, max_pixels: int, max_bytes: int
) -> tuple[np.ndarray, float]:
    """One frame as uint8 ``(H, W)`` or ``(H, W, 3)``, and how many times as high as wide a pixel is.

    Inputs:
        frame, window, orient, max_pixels, max_bytes: as in ``Scan``.

    Raises:
        BadSample: if it is damaged, too large, holds no picture, or needs a decoder that is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(data, frame, window, orient, max_pixels, max_bytes)
    except BadSample:
        raise
    except RuntimeError as error:
        need = "; try: pip install pylibjpeg pylibjpeg-libjpeg" if "plugins" in str(error) else ""
        raise BadSample(f"cannot decode the DICOM pixel data{need}") from None
    except MemoryError:
        raise BadSample("the DICOM file asks for more memory than there is") from None
    except Exception as error:  # pydicom raises nearly everything; its words may repeat the header
        raise BadSample(f"not a readable DICOM picture ({type(error).__name__})") from None


def _read(
    data: bytes, frame: str | int | float, window: Window, orient: bool, max_pixels: int, max_bytes: int
) -> tuple[np.ndarray, float]:
    deflated = _is_deflated(data, max_bytes)
    head = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=TAGS)
    rows, columns, samples = (
        int(head.get(k, d)) for k, d in (("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1))
    )
    if rows < 1 or columns < 1 or samples not in (1, 3):
        raise BadSample("a DICOM file without a picture")
    if rows * columns > max_pixels:
        raise BadSample(f"{columns} x {rows} pixels; max_pixels is {max_pixels}")
    index = chosen(frame, max(1, int(head.get("NumberOfFrames") or 1)))
    _check_frame(data, head, index, rows, columns)
    file = io.BytesIO(data)  # of a file that is not deflated pydicom reads the frame alone
    stored = pixel_array(pydicom.dcmread(file) if deflated else file, index=index)  # (H, W) or (H, W, 3)
    found = Header(head, index)
    kind = str(head.get("PhotometricInterpretation", "MONOCHROME2"))
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, head)
    grey = stored.ndim == 2
    picture = _grey(stored, head, found, window, kind == "MONOCHROME1") if grey else _colour(stored)
    aspect = aspect_of(found)
    if orient:
        picture, swapped = hung(picture, *directions(found))
        aspect = 1 / aspect if swapped else aspect
    return picture, aspect


def _is_deflated(data: bytes, most: int) -> bool:
    """Whether pydicom will unpack the file whole; not without a look at how large it is then."""
    file = io.BytesIO(data)
    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    deflated = str(meta.get("TransferSyntaxUID", "")).strip("\0 ") == _DEFLATED
    if deflated and unpacks_to_more(data[file.tell() :], most):
        raise BadSample(f"unpacks to more than {most} bytes")
    return deflated


def _check_frame(data: bytes, head: Any, index: int, rows: int, columns: int) -> None:
    """A compressed frame has its own sizes, which a decoder would believe."""
    syntax = head.file_meta.get("TransferSyntaxUID") if hasattr(head, "file_meta") else None
    if syntax is None or not getattr(syntax, "is_compressed", False) or str(syntax) == _DEFLATED:
        return
    whole = pydicom.dcmread(io.BytesIO(data), specific_tags=["PixelData", "NumberOfFrames"])
    coded = get_frame(whole.PixelData, index, number_of_frames=int(whole.get("NumberOfFrames") or 1))
    if str(syntax) == _RLE:
        if len(coded) > _MOST_RLE:
            raise BadSample(f"a run-length frame of {len(coded)} bytes; the limit is {_MOST_RLE}")
        return
    from PIL import Image

    try:
        size = Image.open(io.BytesIO(coded), formats=("JPEG", "JPEG2000")).size
    except Exception:  # of a kind Pillow does not know: another decoder's affair
        return
    if size != (columns, rows):
        raise BadSample("the picture inside has another size than the header says")


def _grey(stored: np.ndarray, head: Any, found: Header, window: Window, inverted: bool) -> np.ndarray:
    known = _known(stored, found)
    lut = found.holder("ModalityLUTSequence")
    if lut is not None:
        values = apply_modality_lut(stored, lut)  # (H, W)
    else:
        slope, intercept = found.numbers("RescaleSlope"), found.numbers("RescaleIntercept")
        values = stored
        if slope or intercept:
            values = stored.astype(np.float32)
            values *= slope[0] if slope else 1.0
            values += intercept[0] if intercept else 0.0
    picture = _levelled(values, known, head, found, window)
    if inverted:
        picture = 255 - picture
    if known is not None:
        picture[~known] = 0
    return picture


def _levelled(
    values: np.ndarray, known: np.ndarray | None, head: Any, found: Header, window: Window
) -> np.ndarray:
    if window == "range":
        return stretched(values, known)
    if isinstance(window, str) and window in WINDOWS:
        return windowed(values, *WINDOWS[window])
    if not isinstance(window, str | int):
        return windowed(values, float(window[0]), float(window[1]))
    which = 0 if isinstance(window, str) else window
    centres, widths = found.numbers("WindowCenter"), found.numbers("WindowWidth")
    luts = found.holder("VOILUTSequence")
    if luts is not None and np.issubdtype(values.dtype, np.integer):
        which = min(which, len(luts.VOILUTSequence) - 1)
        return stretched(apply_voi(values, luts, which))
    pairs = list(zip(centres, widths, strict=False))
    if pairs:
        function = str(found.get("VOILUTFunction") or "LINEAR")
        return windowed(values, *pairs[min(which, len(pairs) - 1)], function)
    return stretched(values, known)


def _known(stored: np.ndarray, found: Header) -> np.ndarray | None:
    """``(H, W)`` bool: False where the scanner saw nothing (padding); None if the header knows of none."""
    low, high = found.numbers("PixelPaddingValue"), found.numbers("PixelPaddingRangeLimit")
    if not low:
        return None
    a, b = sorted([low[0], (high or low)[0]])
    known = (stored < a) | (stored > b)
    return known if known.any() else None


def _colour(stored: np.ndarray) -> np.ndarray:
    if stored.dtype == np.uint8:
        return stored
    return np.stack([stretched(stored[..., i]) for i in range(3)], -1)  # (H, W, 3)
