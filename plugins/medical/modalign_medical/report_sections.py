"""Splits a clinical report into its sections."""

from __future__ import annotations

import re

_NAMES = {
    "addendum": "addendum",
    "comparison": "comparison|comparisons|prior studies",
    "examination": "examination|exam|procedure|study|type of examination|type of exam",
    "findings": "findings|finding|observations|description|report|chest",
    "history": "history|clinical history|clinical information|indication|indications|reason for exam|"
    "reason for examination|reason for this examination|reason for study|clinical indication|"
    "medical condition|patient history",
    "impression": "impression|impressions|conclusion|conclusions|opinion|interpretation|summary|"
    "final diagnosis|assessment",
    "recommendation": "recommendation|recommendations|advice|plan|follow-up|followup",
    "technique": "technique|method|methods|protocol|views",
    "wet read": "wet read|preliminary read|preliminary report|final report",
}  # fmt: skip
_CANONICAL = {alias: name for name, aliases in _NAMES.items() for alias in aliases.split("|")}
SECTIONS = tuple(sorted(_NAMES))
"""The sections that are known, each under several headings."""

_ALIASES = "|".join(re.escape(a).replace(r"\ ", "[ ]") for a in sorted(_CANONICAL, key=len, reverse=True))
# At the start of a line in any case, within a line in capitals; the name, then a colon.
_HEADING = re.compile(
    rf"(?:^[ \t]*(?P<line>(?i:{_ALIASES}))|(?<=[.\s])(?P<inside>{_ALIASES.upper().replace('[ ]', '[ ]')}))"
    r"[ \t]*:",
    re.MULTILINE,
)


def sections(text: str) -> list[tuple[str | None, str]]:
    """``(name, text)`` in order; the name is None for what stands before the first known heading.

    Text under a heading that is not known belongs to the section before it.
    """
    found: list[tuple[str | None, str]] = []
    name, start = None, 0
    for match in _HEADING.finditer(text):
        found.append((name, text[start : match.start()].strip()))
        name = _CANONICAL[(match["line"] or match["inside"]).lower()]
        start = match.end()
    found.append((name, text[start:].strip()))
    return [(n, t) for n, t in found if t]
