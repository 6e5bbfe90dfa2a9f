"""The model card: what a space is, in words for people and YAML for hubs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from modalign.errors import UserError, suggest
from modalign.plain_yaml import parse

if TYPE_CHECKING:
    from modalign.space import Space

ABOUT = ("license", "language", "tags", "datasets", "results")
"""What ``space.about`` may hold: what a card says that the space itself does not know."""
TAGS = ("modalign", "embeddings")


def card(space: Space) -> str:
    """``README.md`` of a space, in the Hugging Face form."""
    front = yaml.safe_dump(metadata(space), sort_keys=False, allow_unicode=True, width=100)
    encoders = "\n".join(
        f"| {name} | `{e.encoder.name}` | {'in this folder' if e.carried else 'referenced'} |"
        for name, e in space.entries.items()
    )
    stages = "\n".join(
        f"{i}. `{s['name']}`: {', '.join(s['align'])}; trained {', '.join(s['trained'])}"
        for i, s in enumerate(space.stages, 1)
    )
    return f"""---
{front}---
# {_name(space)}

One embedding space of {space.dim} dimensions for {", ".join(space.entries)}.

```python
import modalign

space = modalign.load(".")
z = space.embed("{next(iter(space.entries), "MODALITY")}", values)  # (N, {space.dim}), unit rows
```

| modality | encoder | weights |
|---|---|---|
{encoders}

Stages:
{stages or "none"}
{_results(space)}"""


def metadata(space: Space) -> dict[str, Any]:
    """The card's YAML."""
    about = space.about
    found: dict[str, Any] = {"library_name": "modalign"}
    for key in ("license", "language"):
        if about.get(key):
            found[key] = about[key]
    found["tags"] = list(dict.fromkeys([*TAGS, *space.entries, *about.get("tags", ())]))
    found["modalities"] = list(space.entries)
    if about.get("datasets"):
        found["datasets"] = list(about["datasets"])
    results = list(_index(space))
    if results:
        found["metrics"] = sorted({each["type"] for result in results for each in result["metrics"]})
        found["model-index"] = [{"name": _name(space), "results": results}]
    return found


def told(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a user says of a space, checked.

    Raises:
        UserError: for another word than ``ABOUT``, or a single string where several are meant.
    """
    for key, value in about.items():
        if key not in ABOUT:
            raise UserError(f"a card has no {key!r}{suggest(key, ABOUT)} (it has: {', '.join(ABOUT)})")
        if key in ("tags", "datasets") and isinstance(value, str):
            raise UserError(f"{key} are a list: write [{value!r}]")
    return {key: value for key, value in about.items() if value is not None}


def read_card(path: Path) -> dict[str, Any]:
    """``space.about`` as a card tells it; empty for a card that is missing or was rewritten by hand."""
    try:
        _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        _, found = parse(front)
        tags = [tag for tag in found.get("tags", ()) if tag not in (*TAGS, *found.get("modalities", ()))]
        results = {
            result["task"]["name"]: {each["type"]: float(each["value"]) for each in result["metrics"]}
            for model in found.get("model-index", ())
            for result in model["results"]
        }
        about = {key: found.get(key) for key in ("license", "language", "datasets")}
        return {key: value for key, value in {**about, "tags": tags, "results": results}.items() if value}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _index(space: Space) -> Iterator[dict[str, Any]]:
    """The results of ``model-index``; what was measured on is named by its table."""
    data = (space.about.get("datasets") or [None])[0]
    table = _table(space.plan.get("data")) or _name(space)
    for name, metrics in space.about.get("results", {}).items():
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        if finite:
            yield {
                "task": {"type": name.partition(":")[0], "name": name},
                "dataset": {"type": data or table, "name": table},
                "metrics": [{"type": key, "value": value} for key, value in finite.items()],
            }


def _table(data: Any) -> str | None:
    """The name of the plan's first table, without its folder and ending."""
    if isinstance(data, Mapping):
        tables = data.get("tables")
        parts = [data.get("table"), *(tables.values() if isinstance(tables, Mapping) else ())]
        parts += [_table(each) for each in data.get("mix") or ()]
        return next((Path(part).stem for part in parts if isinstance(part, str) and part), None)
    return None


def _name(space: Space) -> str:
    return str(space.plan.get("name") or "space")


def _results(space: Space) -> str:
    rows = [
        f"| {name} | {', '.join(f'{key} {value:.3f}' for key, value in metrics.items())} |"
        for name, metrics in space.about.get("results", {}).items()
    ]
    return "\n".join(["", "| task | found |", "|---|---|", *rows, ""]) if rows else ""
