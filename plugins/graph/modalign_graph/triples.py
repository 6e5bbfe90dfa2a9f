"""Triples from JSON, Turtle or N-Triples, within limits and without any network."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from modalign import BadSample

Triple = tuple[str, str, str]

MAX_CHARACTERS = 1 << 17
"""Of a document; longer ones are refused before they are parsed."""
MAX_NAME = 200
"""Characters of a name; longer ones are cut there."""
_SETTINGS = threading.Lock()


def read_triples(value: Any, max_triples: int) -> list[Triple]:
    """Subject, predicate and object of every triple as words, in the document's order, each once.

    Inputs:
        value: a list of ``[subject, predicate, object]``; or as text the same in JSON, or Turtle, of
            which N-Triples is a part.

    Raises:
        BadSample: if it is none of these, empty, or larger than the limits.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise BadSample("no triples: empty text")
        if len(text) > MAX_CHARACTERS:
            raise BadSample(f"{len(text)} characters; at most {MAX_CHARACTERS} are read")
        value = _json(text) if text[0] in "[{" else None
        rows: Sequence[Any] = _turtle(text, max_triples) if value is None else value
    elif isinstance(value, list | tuple):
        rows = value
    else:
        raise BadSample(f"expected triples, got {type(value).__name__}")
    if not rows:
        raise BadSample("no triples")
    if len(rows) > max_triples:
        raise BadSample(f"{len(rows)} triples; at most {max_triples} are read")
    return list(dict.fromkeys(_triple(row) for row in rows))


def words(name: str) -> str:
    """``leaderName`` and ``Jacob_Bundsgaard`` as people write them: ``leader name``, ``Jacob Bundsgaard``."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name) if " " not in name and "_" not in name else name
    return " ".join(name.replace("_", " ").strip("\"' ").split())


def _triple(row: Any) -> Triple:
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise BadSample("a triple is [subject, predicate, object]")
    s, p, o = (_name(part) for part in row)
    return s, _lower(p), o


def _lower(relation: str) -> str:
    """A relation that was one word in camel case reads as a phrase."""
    return (
        relation
        if relation.isupper()
        else " ".join(w if w.isupper() else w.lower() for w in relation.split())
    )


def _name(part: Any) -> str:
    if isinstance(part, bool) or not isinstance(part, str | int | float):
        raise BadSample(f"a name is text or a number, not {type(part).__name__}")
    name = words(str(part)[: 2 * MAX_NAME])[:MAX_NAME]
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadSample("a name that is not Unicode text") from None
    if not name:
        raise BadSample("a triple with an empty name")
    return name


def _json(text: str) -> list[Any] | None:
    """The list; None if it is no JSON and may be Turtle (``[ a :Thing ] .``)."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise BadSample("lists within lists without end") from None
    except ValueError:
        if re.match(r"\[\s*\[", text):
            raise BadSample("damaged JSON") from None
        return None
    if not isinstance(found, list):
        raise BadSample("expected a list of [subject, predicate, object]")
    if len(found) == 3 and all(isinstance(part, str) for part in found):
        return [found]
    return found


def _turtle(text: str, max_triples: int) -> list[list[str]]:
    import rdflib

    with _plain_rdflib():
        try:
            graph = rdflib.Graph()
            graph.parse(data=text, format="turtle", publicID="http://example.org/")
        except Exception:  # rdflib's parser raises whatever the damage leads to
            raise BadSample("neither a JSON list of triples nor Turtle or N-Triples") from None
        if len(graph) > max_triples:
            raise BadSample(f"{len(graph)} triples; at most {max_triples} are read")
        blank: dict[Any, str] = {}
        return [[_term(term, blank) for term in triple] for triple in graph]


def _term(term: Any, blank: dict[Any, str]) -> str:
    """The end of an IRI, a literal's text, or a number for a node without a name."""
    import rdflib

    if isinstance(term, rdflib.BNode):
        return blank.setdefault(term, f"unnamed {len(blank) + 1}")
    text = str(term)
    if isinstance(term, rdflib.URIRef):
        text = unquote(re.split(r"[#/:]", text.rstrip("#/:"))[-1]) or text
    return text


@contextmanager
def _plain_rdflib() -> Iterator[None]:
    """Literals as they are written (a short decimal may stand for gigabytes of digits), and no warnings."""
    import rdflib

    log = logging.getLogger("rdflib")
    with _SETTINGS:
        before, level = rdflib.NORMALIZE_LITERALS, log.level
        rdflib.NORMALIZE_LITERALS = False
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            rdflib.NORMALIZE_LITERALS = before
            log.setLevel(level)
