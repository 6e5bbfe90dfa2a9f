""".npy files that may be damaged or a stranger's."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def map_array(path: Path) -> np.ndarray:
    """An array that stays on disk, mapped into memory; never a pickle.

    Raises:
        ValueError: if the file is none.
        OSError: if it cannot be read.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python, with whatever that raises
        raise ValueError(f"{path.name} is no array: {error}") from None
