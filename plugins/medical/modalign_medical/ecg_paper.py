"""Draws a recording as on ECG paper: 25 mm a second, 10 mm a millivolt."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

_SECOND, _MV = 25.0, 10.0  # millimetres
_ROW = 20.0  # of one lead
_LONGEST, _POINTS, _LEADS = 10.0, 1500, 12


def strip(signal: np.ndarray, rate: float, names: Sequence[str]) -> bytes:
    """An SVG of the first ten seconds of ``(C, L)`` millivolts, gaps left white; at most twelve leads."""
    signal = signal[:_LEADS, : max(1, round(_LONGEST * rate))]
    width = max(_SECOND * signal.shape[1] / rate, 5.0)
    height = _ROW * len(signal)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {height:.1f}" '
        f'width="{4 * width:.0f}" height="{4 * height:.0f}">',
        '<defs><pattern id="s" width="1" height="1" patternUnits="userSpaceOnUse"><path d="M1 0H0V1" '
        'fill="none" stroke="#f6c9c9" stroke-width="0.08"/></pattern>'
        '<pattern id="l" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" '
        'fill="url(#s)"/><path d="M5 0H0V5" fill="none" stroke="#e99" stroke-width="0.2"/></pattern></defs>',
        '<rect width="100%" height="100%" fill="#fffafa"/><rect width="100%" height="100%" fill="url(#l)"/>',
    ]
    for i, lead in enumerate(signal):
        middle = _ROW * (i + 0.5)
        parts.append(f'<path d="{_line(lead, rate, middle)}" fill="none" stroke="#222" stroke-width="0.3"/>')
        name = escape(names[i]) if i < len(names) else ""
        parts.append(f'<text x="1" y="{middle - 7:.1f}" font-size="3" font-family="sans-serif">{name}</text>')
    return "".join([*parts, "</svg>"]).encode()


def _line(lead: np.ndarray, rate: float, middle: float) -> str:
    step = max(1, len(lead) // _POINTS)
    moves, pen = [], False
    for j in range(0, len(lead), step):
        if np.isnan(lead[j]):
            pen = False
            continue
        y = middle - float(np.clip(lead[j] * _MV, -_ROW / 2, _ROW / 2))
        moves.append(f"{'L' if pen else 'M'}{_SECOND * j / rate:.2f} {y:.2f}")
        pen = True
    return "".join(moves)
