"""Turns a slice so that every scan lies as radiologists hang it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLANES = ("axial", "coronal", "sagittal")
_ACROSS = {"axial": 0, "coronal": 0, "sagittal": 1}
"""The patient axis (left, posterior, head) that runs along a row of the displayed plane, rightwards."""
_DOWN = {"axial": (1, 1), "coronal": (2, -1), "sagittal": (2, -1)}
"""The axis that runs down a column, and its direction."""
_LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "H": (2, 1), "F": (2, -1)}


def hung(
    picture: np.ndarray, along_row: Sequence[float], along_column: Sequence[float]
) -> tuple[np.ndarray, bool]:
    """The picture mirrored or turned so that it hangs as usual, and whether rows and columns changed places.

    Axial: the patient's left to the right, the back below. Coronal: left to the right, the feet below.
    Sagittal: the back to the right, the feet below.

    Inputs:
        picture: ``(H, W)`` or ``(H, W, 3)``.
        along_row, along_column: direction cosines (left, posterior, head) in which a row goes
            rightwards and a column downwards. Where they do not name two axes, nothing is turned.
    """
    row, column = np.asarray(along_row, float), np.asarray(along_column, float)
    if row.shape != (3,) or column.shape != (3,) or not np.isfinite([*row, *column]).all():
        return picture, False
    across, down = int(np.abs(row).argmax()), int(np.abs(column).argmax())
    if across == down or not row[across] or not column[down]:
        return picture, False
    plane = PLANES[
        {frozenset((0, 1)): 0, frozenset((0, 2)): 1, frozenset((1, 2)): 2}[frozenset((across, down))]
    ]
    swapped = across != _ACROSS[plane]
    if swapped:
        picture = picture.swapaxes(0, 1)
        row, column, across, down = column, row, down, across
    if row[across] < 0:
        picture = picture[:, ::-1]
    if column[down] * _DOWN[plane][1] < 0:
        picture = picture[::-1]
    return picture, swapped


def direction(letters: str) -> tuple[float, float, float]:
    """A DICOM patient orientation such as ``L`` or ``LF`` as direction cosines; zeros if it is none."""
    cosines = [0.0, 0.0, 0.0]
    for letter, weight in zip(str(letters).upper(), (1.0, 0.5, 0.25), strict=False):
        axis, sign = _LETTERS.get(letter, (0, 0))
        cosines[axis] += sign * weight
    return cosines[0], cosines[1], cosines[2]


def chosen(frame: str | int | float, count: int) -> int:
    """Which of ``count`` frames: ``middle``, ``first``, ``last``, a number (negative: from the end), a share.

    A number beyond the last frame is the last: volumes differ in length.
    """
    if isinstance(frame, str):
        return {"first": 0, "middle": count // 2, "last": count - 1}[frame]
    if isinstance(frame, float):
        return min(int(frame * count), count - 1)
    return min(max(frame + count if frame < 0 else frame, 0), count - 1)
