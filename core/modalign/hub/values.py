"""What the field's libraries hand over, as a table would hold it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from modalign.errors import UserError


def as_cell(value: Any) -> Any:
    """A PIL picture as PNG bytes, ``{"array", "sampling_rate"}`` as WAV bytes; the rest as it is.

    Both keep every pixel and every float32 sample.
    """
    if callable(getattr(value, "save", None)) and hasattr(value, "getbands"):
        file = io.BytesIO()
        value.save(file, "PNG")
        return file.getvalue()
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value):
        return _wav(value["array"], int(value["sampling_rate"]))
    return value


def _wav(array: Any, rate: int) -> bytes:
    import numpy as np

    try:
        import soundfile
    except ImportError:
        raise UserError("arrays of samples need soundfile: pip install soundfile") from None
    samples = np.asarray(array, dtype=np.float32)  # (L,) or (channels, L)
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T  # (L, channels)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
