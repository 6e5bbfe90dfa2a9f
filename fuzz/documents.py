"""Changes plans and other trees of mappings, lists and values: types, keys, extremes, depth, aliases."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**6, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), "", " ", "\0", "a\0b", "x" * 3000, "é", "世界🎵", "\ud800", "\u202e", "null", "1", "1e3", "-1", "on", "2001-01-01",
    "../..", "/", "/dev/zero", "fifo", "~", "${HOME}", "${NO_SUCH}", "a.b", "a:b", "a;b", "*", "[a", "{0..9}", "{0..99999999}",
    [], {}, [[]], [{}], [None], {"": None}, {"name": None}, {"name": []}, {"name": "x", "name ": 1}, ["a", "a"], [1, "a", None], {"a": {"b": {}}},
)  # fmt: skip

Path = list[Any]


def changed(tree: Any, words: Sequence[str], draw: random.Random) -> Any:
    """A copy with one to four changes.

    Inputs:
        words: keys and values of the format.
    """
    holder = [copy.deepcopy(tree)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        parent, key = draw.choice(_places(holder))
        _change(parent, key, words, draw)
    return holder[0]


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every ``(container, key)`` of a tree."""
    found: list[tuple[Any, Any]] = []
    waiting = [node]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    return found


def _change(parent: Any, key: Any, words: Sequence[str], draw: random.Random) -> None:
    value = parent[key]
    way = draw.randrange(10)
    if way < 3:
        parent[key] = copy.deepcopy(draw.choice(ODD))
    elif way == 3:
        parent[key] = draw.choice(words)
    elif way == 4 and isinstance(parent, dict):
        del parent[key]
        parent[draw.choice((draw.choice(words), str(key) + "s", "", "é", 7, None))] = value
    elif way == 5 and isinstance(parent, dict):
        parent[draw.choice(words)] = copy.deepcopy(draw.choice(ODD)) if draw.random() < 0.5 else value
    elif way == 6:
        parent[key] = [value] if draw.random() < 0.5 else {draw.choice(words): value}
    elif way == 7:
        depth = draw.choice((5, 100, 900))
        for _ in range(depth):
            value = [value] if depth == 5 else {"name": value} if draw.random() < 0.5 else [value]
        parent[key] = value
    elif way == 8 and isinstance(value, list) and value:
        parent[key] = value * draw.choice((2, 3, 8))
    elif isinstance(parent, dict) and draw.random() < 0.7:
        del parent[key]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = draw.choice((-value, value * 10**9, value // 2, repr(value)[:300]))
    else:
        parent[key] = None


def as_text(tree: Any, draw: random.Random) -> str:
    """JSON, which is YAML too; or YAML with anchors where a value stands twice."""
    try:
        if draw.random() < 0.3:
            import yaml

            return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=draw.random() < 0.5))
        return json.dumps(_plain(tree), ensure_ascii=draw.random() < 0.5)
    except (RecursionError, ValueError, TypeError):
        return "[" * 2000
    except Exception:  # safe_dump has no form for some of it
        return str(tree)


def as_json(tree: Any) -> bytes:
    """JSON, whatever the tree holds."""
    try:
        return json.dumps(tree, default=str, skipkeys=True).encode()
    except (RecursionError, ValueError):
        return b"[" * 2000


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key if isinstance(key, str) else str(key): _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list) else tree
