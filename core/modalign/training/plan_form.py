"""Checks a plan's form: every wrong key and value in words."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from modalign.errors import suggest

from .plan import Plan
from .plan_file import Place, PlanSource, Problem


def validate(source: PlanSource) -> tuple[Plan | None, list[Problem]]:
    """The plan, and what is wrong with its form.

    Wrong entries are left out and the rest is tried again, so that later checks can report their
    problems in the same message; the plan is None where that is impossible.
    """
    problems = list(source.problems)
    raw = source.raw
    for _ in range(20):
        try:
            return Plan.model_validate(raw), problems
        except ValidationError as error:
            places = []
            for item in error.errors():
                place = _existing(raw, item["loc"])
                problems.append(Problem(place, _words(item, place)))
                if item["type"] != "missing":
                    places.append(place)
            if not places or () in places:
                return None, problems
            for place in places:
                raw = _without(raw, place)
    return None, problems


def _existing(raw: Any, location: Place) -> Place:
    """The part of a pydantic location that stands in the file (unions and validators add more)."""
    place: list[str | int] = []
    for i, part in enumerate(location):
        if (isinstance(raw, dict) and part in raw) or (
            isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        ):
            raw = raw[part]  # type: ignore[index]
            place.append(part)
        elif i == len(location) - 1 and isinstance(raw, dict):
            place.append(part)
        else:
            break
    return tuple(place)


def _without(raw: Any, place: Place) -> Any:
    if not place or not isinstance(raw, dict | list):
        return raw
    head, rest = place[0], place[1:]
    if isinstance(raw, list):
        return [
            (_without(v, rest) if rest else None) if i == head else v
            for i, v in enumerate(raw)
            if rest or i != head
        ]
    if rest:
        return {k: _without(v, rest) if k == head else v for k, v in raw.items()}
    return {k: v for k, v in raw.items() if k != head}


def _words(item: Any, place: Place) -> str:
    kind, key = item["type"], str(place[-1]) if place else ""
    if kind == "extra_forbidden":
        known = _keys_at(place[:-1])
        return f"unknown key{suggest(key, known)} (known: {', '.join(known)})"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    given = item.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    if kind == "string_pattern_mismatch":
        return f"use letters, digits, - and _{shown}"
    return item["msg"].removeprefix("Input should be ") + shown


def _keys_at(place: Place) -> list[str]:
    """The keys a plan may have at a place: walks the models along it."""
    model: Any = Plan
    for part in place:
        if isinstance(part, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        field_info = model.model_fields.get(part)
        model = _model_in(field_info.annotation) if field_info else model
    return list(getattr(model, "model_fields", ()))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found:
            return found
    return None
