"""Bars of ABC as a picture of notes, by verovio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

_OPTIONS = {
    "pageWidth": 1600,
    "scale": 40,
    "adjustPageHeight": True,
    "adjustPageWidth": True,
    "header": "none",
    "footer": "none",
    "svgViewBox": True,
    "xmlIdChecksum": True,  # the same notes give the same picture
}
_BARS = 64  # what fits a page that people look at


def engraved(bars: Sequence[str]) -> tuple[str, bytes] | None:
    """The first bars as ``image/svg+xml``; None without verovio, or if it cannot read them.

    Inputs:
        bars: as ``bars_of_abc`` gives them.
    """
    toolkit = _toolkit()
    if toolkit is None:
        return None
    fields = [bar for bar in bars[:8] if bar[1:2] == ":" and bar[0] in "ML"]
    key = next((bar for bar in bars[:8] if bar.startswith("K:")), "K:C")
    music = [bar for i, bar in enumerate(bars[:_BARS]) if i >= 8 or not (bar in fields or bar == key)]
    tune = ["X:1", *(fields or ["M:none", "L:1/8"]), key, *music]
    if not toolkit.loadData("\n".join(tune) + "\n"):
        return None
    picture = toolkit.renderToSVG(1)
    return ("image/svg+xml", picture.encode()) if picture else None


@cache
def _toolkit() -> Any:
    try:
        import verovio
    except ImportError:
        return None
    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    toolkit.setInputFrom("abc")
    toolkit.setOptions(_OPTIONS)
    return toolkit
