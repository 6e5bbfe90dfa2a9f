"""YAML from strangers: one small document as plain values, and the nodes that know its lines."""

from __future__ import annotations

import re
from typing import Any

import yaml

from modalign.errors import short

MOST_CHARACTERS = 1 << 18
MOST_PLACES = 100_000
"""Keys, items and values in one document, aliases unfolded: a few lines could otherwise fill the memory."""


_DEEP = re.compile(r"(?:[\[{][ \t]*){100}")


_HALF = re.compile("[\ud800-\udfff]")


class NotYaml(ValueError):
    """Why a text is no document, and in which line, if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(short(reason))
        self.line = line


def parse(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> tuple[yaml.Node | None, Any]:
    """The nodes of a document and its value, read once.

    Raises:
        NotYaml: if it is none, too long, nested too deeply, or its aliases unfold without end.
    """
    if len(text) > MOST_CHARACTERS:
        raise NotYaml(f"it has over {MOST_CHARACTERS:,} characters")
    if _DEEP.search(text):  # which costs the parser a second before it gives up
        raise NotYaml("it is nested too deeply")
    try:
        reader = loader(text)
        node = reader.get_single_node()
        if node is None:
            return None, None
        if _places_in(node, {}) > MOST_PLACES:
            raise NotYaml(f"its aliases (*name) unfold to over {MOST_PLACES:,} places")
        return node, reader.construct_document(node)
    except RecursionError:
        raise NotYaml("it is nested too deeply, or an alias (*name) holds itself") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = str(getattr(error, "problem", None) or error)
        raise NotYaml(f"not valid YAML: {reason}", mark.line + 1 if mark else None) from None
    except NotYaml:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
    ) as error:  # 2001-99-99, !!int x
        raise NotYaml(f"not valid YAML: {error}") from None


def _places_in(node: yaml.Node, known: dict[int, int]) -> int:
    """How many places a document has once aliases are unfolded, counted without unfolding them."""
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif _HALF.search(node.value):
            raise NotYaml("it holds half of a surrogate pair, no character", node.start_mark.line + 1)
        known[id(node)] = 1 + sum(_places_in(part, known) for part in parts)
    return known[id(node)]
