"""A PNG, JPEG, TIFF, … as an upright grey or RGB picture; EXIF and comments are dropped."""

from __future__ import annotations

import io
import warnings
from functools import cache

import numpy as np
from modalign import BadSample
from PIL import Image, ImageOps, UnidentifiedImageError

from .scan_window import WINDOWS, Window, stretched, windowed

_FORMATS = ("BMP", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata is no news: what spoils pixels is raised


def read_picture(data: bytes, window: Window, max_pixels: int, enough: int) -> np.ndarray:
    """The first frame as uint8 ``(H, W)`` or ``(H, W, 3)``, upright by its EXIF, transparency on black.

    Inputs:
        window, max_pixels: as in ``Scan``. More than 8 bits are stretched from the darkest to the
            brightest value, unless ``window`` gives centre and width.
        enough: JPEGs are decoded at the smallest scale that keeps both sides above this.

    Raises:
        BadSample: if it is no picture, damaged, cut short or too large.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_available())
        if image.width * image.height > max_pixels:
            raise BadSample(f"{image.width} x {image.height} pixels; max_pixels is {max_pixels}")
        image.draft(None, (enough, enough))
        image.load()
        return _pixels(_upright(image), window)
    except BadSample:
        raise
    except UnidentifiedImageError:
        raise BadSample("neither DICOM, NIfTI nor a picture of a known format") from None
    except Exception as error:  # Pillow's decoders raise nearly everything
        raise BadSample(f"cannot decode the picture: {str(error) or type(error).__name__}") from None


@cache
def _available() -> tuple[str, ...]:
    Image.init()
    return tuple(f for f in _FORMATS if f in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the pixels
        return image


def _pixels(image: Image.Image, window: Window) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)  # (H, W)
        if isinstance(window, str) and window in WINDOWS:
            return windowed(values, *WINDOWS[window])
        if not isinstance(window, str | int):
            return windowed(values, float(window[0]), float(window[1]))
        return stretched(values)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
    same = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[..., 0] if same else pixels  # a grey scan saved in colour is grey
