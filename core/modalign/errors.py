"""The error a user's mistake becomes: one clear message, exit status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was asked, what exists, what to type. Shown without a traceback; nothing was written."""


def short(text: str, most: int = 1000) -> str:
    """A text for a message, cut where it goes on for too long."""
    return text if len(text) <= most else f"{text[:most]}..."


def listed(words: Iterable[str]) -> str:
    """Words for a message, which stays readable however many and long they are."""
    words = list(words)
    text = ", ".join(word if len(word) <= 80 else f"{word[:77]}..." for word in words[:50])
    return f"{text} and {len(words) - 50} more" if len(words) > 50 else text


def suggest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, else ``""``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
