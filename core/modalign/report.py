"""What a run leaves for people to read: a table on the terminal, ``report.html``, figures."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .contracts import Report

STAR = "* never trained together"

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } polyline { fill: none; stroke: #3b82f6; stroke-width: 2; }
figure { margin: 1rem 0; } figcaption, small { opacity: .7; } pre { overflow-x: auto; }
"""


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


def task_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Per task its metrics, one column for each that any task has; a star: never trained together."""
    tasks = content["tasks"]
    starred = set(content.get("never_paired", ()))
    metrics = list(dict.fromkeys(m for values in tasks.values() for m in values))
    return [["task", *metrics]] + [
        [name + " *" * (name in starred), *(f"{values[m]:.3f}" if m in values else "" for m in metrics)]
        for name, values in tasks.items()
    ]


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


def text(content: Mapping[str, Any]) -> str:
    """A report as it is printed at the end of a run."""
    parts = [columns(stage_rows(content))]
    if content["tasks"]:
        parts.append(columns(task_rows(content)))
    if content.get("never_paired"):
        parts.append(STAR)
    return "\n\n".join(parts)


def write(folder: Path, content: Mapping[str, Any], tasks: Mapping[str, Report]) -> None:
    """``report.html`` and ``figures/`` in a run folder; the page needs no network."""
    for name, report in tasks.items():
        for title, figure in report.figures.items():
            (folder / "figures").mkdir(exist_ok=True)
            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{name}-{title}")
            figure.savefig(folder / "figures" / f"{safe}.png", dpi=150)
    page = [
        f"<h1>{html.escape(content['plan']['name'])}</h1>",
        "<h2>Stages</h2>",
        _table(stage_rows(content)),
        _curve(folder / "metrics.jsonl"),
        "<h2>Tasks</h2>" + _table(task_rows(content)) if content["tasks"] else "",
        f"<small>{STAR}</small>" if content.get("never_paired") else "",
        *(_details(name, report) for name, report in tasks.items()),
        "<h2>Versions</h2>" + _table([["", "version"], *map(list, content["versions"].items())]),
        f"<h2>Plan</h2><pre>{html.escape(json.dumps(content['plan'], indent=1, ensure_ascii=False))}</pre>",
    ]
    title = html.escape(content["plan"]["name"])
    body = "\n".join(part for part in page if part)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    (folder / "report.html").write_text(
        f'<!doctype html><html lang="en">{head}{body}</html>\n', encoding="utf-8"
    )


def _table(rows: Sequence[Sequence[Any]]) -> str:
    cells = ["".join(f"<td>{html.escape(str(c))}</td>" for c in row) for row in rows]
    head = cells[0].replace("td>", "th>")
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells[1:])}</table>"


def _details(name: str, report: Report) -> str:
    parts = []
    for title, rows in report.tables.items():
        if rows:
            shown = [[f"{v:.3f}" if isinstance(v, float) else v for v in row.values()] for row in rows]
            parts.append(f"<h4>{html.escape(title)}</h4>{_table([list(rows[0]), *shown])}")
    return f"<details><summary>{html.escape(name)}</summary>{''.join(parts)}</details>" if parts else ""


def _curve(metrics: Path) -> str:
    """The loss over all steps as one line."""
    try:
        records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return ""
    points = [
        (r["step"], r["metrics"]["loss"]) for r in records if isinstance(r["metrics"].get("loss"), float)
    ]
    if len(points) < 2:
        return ""
    low, high = min(v for _, v in points), max(v for _, v in points)
    first, last = points[0][0], points[-1][0]
    line = " ".join(
        f"{(s - first) / max(1, last - first) * 800:.1f},{200 - (v - low) / max(high - low, 1e-12) * 190:.1f}"
        for s, v in points
    )
    return (
        '<figure><svg viewBox="0 0 800 205" role="img" aria-label="loss by step">'
        f'<polyline points="{line}"/></svg>'
        f"<figcaption>loss, {high:.3f} to {low:.3f}, over {last} steps</figcaption></figure>"
    )
