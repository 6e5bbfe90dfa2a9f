"""How a plan, its metrics and its secrets are written in MLflow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_NAME = 250
"""MLflow's limit on the length of a metric's, a parameter's or a tag's name."""

_WORDS = {"->": " to ", "@": " at "}
_FORBIDDEN = re.compile(r"->|@|[^A-Za-z0-9_\-.:/]")
_BAD_SLASH = re.compile(r"^/|/$|/(?=/)")
_BAD_DOTS = re.compile(r"^\.\.|(?<![^/])\.\.?(?![^/])")
_PASSWORD = re.compile(r"(?<=://)[^\s/\"']*@")
_SECRET_QUERY = re.compile(r"(?i)([?&][\w-]*(?:password|passwd|pwd|token|secret)[\w-]*=)[^&\s\"']+")


def mlflow_name(name: str) -> str:
    """A name as MLflow accepts it: ``retrieval:audio->image/R@1`` is ``retrieval:audio to image/R at 1``.

    MLflow allows letters, digits, ``_ - . : /`` and the space. ``->`` becomes `` to ``, ``@``
    becomes `` at ``, and any other character, a space too, its hexadecimal code: `` x20 ``. Every
    space thus comes from a replacement, so two names never become one. What MLflow would read as
    another path (``a//b``, ``../a``) is replaced likewise; a name beyond 250 characters is cut and
    ends in a digest of the whole.

    Inputs:
        name: at least one character.
    """
    written = _FORBIDDEN.sub(lambda match: _WORDS.get(match[0]) or _code(match), name)
    written = _BAD_DOTS.sub(_code, _BAD_SLASH.sub(_code, written))
    if len(written) > MAX_NAME:
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        written = f"{written[: MAX_NAME - len(digest) - 1]}_{digest}"
    return written


def _code(match: re.Match[str]) -> str:
    """Every character of a match by its code: ``"/"`` -> ``" x2f "``."""
    return "".join(f" x{ord(character):x} " for character in match[0])


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A plan as ``("stages.0.lr", "0.001")`` pairs; a list of plain values is one JSON value."""
    inner: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping) and value:
        inner = iter(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        inner = iter(enumerate(value))
    if inner is not None:
        for key, item in inner:
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple | Mapping):
        yield prefix, json.dumps(value, ensure_ascii=False, default=str)
    else:
        yield prefix, str(value)


def redact(text: str) -> str:
    """The text without credentials: ``https://user:word@host`` is ``https://***@host``."""
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD.sub("***@", text))


def redacted(value: Any) -> Any:
    """A plan without the credentials in its strings, however deep they lie."""
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value
