"""Decodes a picture file into an upright RGB image, whatever its mode."""

from __future__ import annotations

import io
import warnings
from functools import cache

import numpy as np
from modalign.contracts import BadSample
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP",
)  # fmt: skip
"""Raster formats with a signature. Others run programs (EPS) or accept nearly any bytes (TGA)."""

# Odd metadata is no news: what spoils a picture is raised. Set once, as reading may be threaded.
warnings.filterwarnings("ignore", module=r"PIL\.")

_RANGES = {"I": (2**8 - 1, 2**16 - 1, 2**31 - 1), "F": (1.0, 2.0**8 - 1, 2.0**16 - 1)}


def decode(data: bytes, max_pixels: int, enough: int) -> Image.Image:
    """The first frame of a file: upright by its EXIF, RGB, transparency on white.

    Inputs:
        data: the file.
        max_pixels: larger pictures are refused before they are unpacked.
        enough: JPEGs are decoded at the smallest scale that keeps both sides above this.

    Raises:
        BadSample: if it is no picture, damaged, cut short or too large.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_available())
        deep = image.mode in _RANGES or image.mode.startswith("I;16")
        if image.width * image.height * (4 if deep else 1) > max_pixels:
            raise BadSample(f"{image.width} x {image.height} pixels; max_pixels is {max_pixels}")
        image.draft(None, (enough, enough))
        image.load()
        return _rgb(_upright(image))
    except BadSample:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything
        reason = (
            "unknown picture format"
            if isinstance(error, UnidentifiedImageError)
            else str(error) or type(error).__name__
        )
        raise BadSample(f"cannot decode the picture: {reason}") from None


@cache
def _available() -> tuple[str, ...]:
    Image.init()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the pixels
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in _RANGES:
        return _from_deep(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        return white.convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """More than 8 bits, scaled from the smallest usual range that holds it; 16 bits from 65535."""
    values = np.asarray(image).astype(np.float64)  # (H, W)
    if not np.isfinite(values).all():
        raise BadSample("cannot decode the picture: pixels that are not finite numbers")
    low, high = values.min(), values.max()
    ranges = (2**16 - 1,) if image.mode.startswith("I;16") else _RANGES[image.mode]
    top = next((r for r in ranges if low >= 0 and high <= r), None)
    if top is None:  # negative or beyond: its own range
        values, top = values - low, max(high - low, 1e-12)
    return Image.fromarray(np.rint(values / top * 255).astype(np.uint8))
