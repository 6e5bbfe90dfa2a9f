"""Grey values to 8 bits: windows of computed tomography, and ranges for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from modalign import BadSample

WINDOWS = {
    "abdomen": (50, 400), "angio": (300, 600), "bone": (400, 1800), "brain": (40, 80), "liver": (60, 160),
    "lung": (-600, 1500), "mediastinum": (50, 350), "spine": (50, 250), "stroke": (35, 40),
    "subdural": (75, 215),
}  # fmt: skip
"""Centre and width in Hounsfield units, as radiologists usually set them."""

Window = str | int | Sequence[float]
_ENOUGH = 1_000_000  # values are enough to estimate a quantile


def windowed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """``values`` within the window as uint8, 0 to 255: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Inputs:
        values: ``(H, W)``.
        function: ``LINEAR`` (whole numbers: the edges lie half a value further in), ``LINEAR_EXACT``
            or ``SIGMOID``, whatever else it says is taken for ``LINEAR``.

    Raises:
        BadSample: if centre or width are no numbers, or the width is not positive.
    """
    if not np.isfinite([centre, width]).all() or width <= 0:
        raise BadSample("its window is not one of positive width")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            grey = 255 / (1 + np.exp(-4 * (values.astype(np.float32) - centre) / width))
        return np.rint(grey).astype(np.uint8)
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, width - 1
    if width <= 0:  # a threshold
        return np.where(values > centre, 255, 0).astype(np.uint8)
    return to_bytes(values, centre - width / 2, centre + width / 2)


def stretched(values: np.ndarray, known: np.ndarray | None = None, share: float = 0.0) -> np.ndarray:
    """``values`` from the smallest to the largest of the known ones as uint8.

    Inputs:
        known: bool, like ``values``: what the range is taken from. None: everything.
        share: of the known values that may be darker than black, and brighter than white.

    Raises:
        BadSample: if nothing is known or finite.
    """
    real = (values if known is None else values[known]).reshape(-1)
    if share > 0 and real.size > _ENOUGH:
        real = real[:: real.size // _ENOUGH]
    if not np.issubdtype(real.dtype, np.integer):
        real = real[np.isfinite(real)]
    if not real.size:
        raise BadSample("holds no finite grey value")
    low, high = (real.min(), real.max()) if share <= 0 else np.quantile(real, [share, 1 - share])
    if high <= low:
        low, high = real.min(), real.max()
    return to_bytes(values, float(low), float(high))


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """``low`` to 0, ``high`` to 255, cut beyond; a flat picture is black, and so is what is no number."""
    kind = np.float64 if values.dtype.itemsize > 4 else np.float32
    with np.errstate(invalid="ignore", over="ignore"):
        grey = values.astype(kind)  # in place from here: pictures may be large
        grey -= low
        grey *= 255.0 / (high - low) if high > low else 0.0
    np.nan_to_num(grey, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.rint(np.clip(grey, 0, 255, out=grey), out=grey).astype(np.uint8)
