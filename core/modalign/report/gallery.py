"""What a report shows of the data themselves: answers to a few queries, and a map of the space."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shown:
    """One item as a person sees it.

    Inputs:
        kind: MIME type of ``content``; "text/plain" for words.
        label: the item's class, if it has one.
    """

    kind: str
    content: bytes
    label: str = ""


@dataclass(frozen=True)
class Answer:
    """A candidate, and whether it is one that was looked for."""

    item: Shown
    right: bool


@dataclass(frozen=True)
class Example:
    """A query and its nearest candidates, nearest first."""

    query: Shown
    answers: list[Answer]


@dataclass
class Gallery:
    """Examples by task, and points of the space in two dimensions.

    Inputs:
        examples: by the task's id.
        points: by modality, ``(x, y, label)`` each.
    """

    examples: dict[str, list[Example]] = field(default_factory=dict)
    points: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)
