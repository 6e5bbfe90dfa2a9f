"""A report as rows and as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAR = "* never trained together"


def stage_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Per stage: name, seconds, trained parameters, loss, what stayed unchanged."""
    head = ["stage", "seconds", "trained", "+ encoders", "loss", "unchanged, bit for bit"]
    return [head] + [
        [
            s["name"],
            f"{s['seconds']:.1f}",
            f"{s['trained_parameters']:,}",
            f"{s['trained_encoder_parameters']:,}",
            f"{s['loss']:.4f}",
            ", ".join(s["unchanged"]) or "-",
        ]
        for s in content["stages"]
    ]


def never_paired(stages: Sequence[Mapping[str, Any]], tasks: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks (id -> modalities) on modalities that no stage had in one ``align``."""
    return [
        name
        for name, modalities in tasks.items()
        if len(modalities) > 1 and not any(set(modalities) <= set(stage["align"]) for stage in stages)
    ]


def task_tables(content: Mapping[str, Any]) -> list[list[list[str]]]:
    """A table for each group of tasks that have metrics in common: a row per task, a column per metric.

    A star: never trained together.
    """
    starred = set(content.get("never_paired", ()))
    groups: list[dict[str, Mapping[str, float]]] = []
    for name, values in content["tasks"].items():
        alike = (
            g for g in groups if any(len(values.keys() & of.keys()) > len(values) / 2 for of in g.values())
        )
        group = next(alike, None)
        if group is None:
            groups.append(group := {})
        group[name] = values
    tables = []
    for group in groups:
        metrics = list(dict.fromkeys(m for values in group.values() for m in values))
        rows = [
            [name + " *" * (name in starred), *(f"{v[m]:.3f}" if m in v else "" for m in metrics)]
            for name, v in group.items()
        ]
        tables.append([["task", *metrics], *rows])
    return tables


def after_stages(content: Mapping[str, Any]) -> list[list[str]]:
    """Each task's primary metric after every stage, and its change since the first: forgetting, if worse.

    Empty unless two stages measured a task.
    """
    stages, primary = content["stages"], content.get("primary", {})
    rows = []
    for task, metric in primary.items():
        values = [s.get("tasks", {}).get(task, {}).get(metric) for s in stages]
        known = [value for value in values if value is not None]
        if len(known) > 1:
            cells = ["" if value is None else f"{value:.3f}" for value in values]
            rows.append([task, metric, *cells, f"{known[-1] - known[0]:+.3f}"])
    head = ["task", "metric", *(s["name"] for s in stages), "since the first"]
    return [head, *rows] if rows else []


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, columns aligned; the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 or (i == last and not cell[:1].isdigit()) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_text(content: Mapping[str, Any]) -> str:
    """A report as it is printed at the end of a run."""
    parts = [columns(stage_rows(content))]
    if content["tasks"]:
        parts += map(columns, task_tables(content))
    if content.get("never_paired"):
        parts.append(STAR)
    return "\n\n".join(parts)


def pair_metric(values: Mapping[str, float]) -> str:
    """What a retrieval is judged by: the class where the data have one, else the very item."""
    return "class_R@1" if "class_R@1" in values else "R@1"


def pairs(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every retrieval of the plan that was measured: ``from``, ``to``, ``metric``, ``value``, ``starred``."""
    found = []
    starred = set(content.get("never_paired", ()))
    for task in content["plan"].get("tasks", ()):
        if task["name"].rpartition(":")[2] != "retrieval":
            continue
        asked = task["from"] if isinstance(task["from"], str) else "+".join(task["from"])
        name = task.get("id") or f"retrieval:{asked}->{task['to']}"
        values = content["tasks"].get(name)
        if values:
            metric = pair_metric(values)
            pair = {"from": asked, "to": task["to"], "metric": metric, "value": values[metric]}
            found.append({**pair, "starred": name in starred})
    return found
