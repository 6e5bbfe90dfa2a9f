"""``report.html``: one page for people, which needs no network."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modalign.contracts import Report

from .gallery import Example, Gallery, Shown
from .svg import bars, heat_map, line_chart, scatter
from .tables import STAR, after_stages, pairs, stage_rows, task_tables

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
"""The page may load nothing and run nothing: samples and names come from strangers."""
STYLE = Path(__file__).with_name("page.css")


def write(
    folder: Path, content: Mapping[str, Any], tasks: Mapping[str, Report], gallery: Gallery | None = None
) -> None:
    """``report.html``, and ``figures/`` with every task's, in a run folder.

    Inputs:
        content: what ``report.json`` holds.
        gallery: examples and a map; None leaves both out.
    """
    pictures = {name: dict(save_figures(folder, name, report)) for name, report in tasks.items()}
    gallery = gallery or Gallery()
    sections = [
        ("Summary", summary(content)),
        ("Tasks", tasks_section(content)),
        ("Stages", stages_section(content) + curves(folder / "metrics.jsonl")),
        ("Examples", examples_section(gallery.examples)),
        ("Map", map_section(gallery)),
        ("Details", "".join(details(name, report, pictures[name]) for name, report in tasks.items())),
        ("Data", health_section(content)),
        ("Environment", table([["", "version"], *map(list, content["versions"].items())])),
        ("Plan", f"<pre>{html.escape(json.dumps(content['plan'], indent=1, ensure_ascii=False))}</pre>"),
    ]
    shown = [(title, body) for title, body in sections if body]
    menu = " ".join(f'<a href="#{title.lower()}">{title}</a>' for title, _ in shown)
    body = "".join(f'<section id="{t.lower()}"><h2>{t}</h2>{inside}</section>' for t, inside in shown)
    whole = frame(content["plan"]["name"], f"<nav>{menu}</nav>{body}")
    (folder / "report.html").write_text(whole, encoding="utf-8")


def frame(title: str, body: str) -> str:
    """A page with that heading, which loads nothing and runs nothing."""
    title = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
        f"<h1>{title}</h1>{body}</html>\n"
    )


def save_figures(folder: Path, name: str, report: Report) -> Iterable[tuple[str, bytes]]:
    """Write a task's figures as PNG; gives title and content of each."""
    for title, figure in report.figures.items():
        (folder / "figures").mkdir(exist_ok=True)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{name}-{title}")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, facecolor="white")
        (folder / "figures" / f"{safe}.png").write_bytes(file.getvalue())
        yield title, file.getvalue()


def summary(content: Mapping[str, Any]) -> str:
    """A sentence on what was done, and the matrix of pairs."""
    stages = content["stages"]
    if not stages:
        return f"<p>{len(content['tasks'])} tasks measured on a finished space.</p>" + matrix(content)
    modalities = list(dict.fromkeys(m for stage in stages for m in stage["align"]))
    seconds = sum(s["seconds"] + s.get("encode_seconds", 0) for s in stages)
    trained = sum(s["trained_parameters"] for s in stages)
    text = (
        f"<p>{len(stages)} {'stage' if len(stages) == 1 else 'stages'} aligned "
        f"<b>{html.escape(', '.join(modalities))}</b> in {seconds:.1f} s, training {trained:,} parameters "
        "besides encoders.</p>"
    )
    return text + matrix(content)


def matrix(content: Mapping[str, Any]) -> str:
    """What every pair of modalities reaches, if two or more were measured."""
    measured = pairs(content)
    if len(measured) < 2:
        return ""
    cells = {(p["from"], p["to"]): (p["value"], p["starred"]) for p in measured}
    metrics = ", ".join(dict.fromkeys(p["metric"] for p in measured))
    note = (
        f"<small>{metrics}, by row to column. {STAR if any(p['starred'] for p in measured) else ''}</small>"
    )
    return heat_map(cells, "retrieval of each pair") + note


def tasks_section(content: Mapping[str, Any]) -> str:
    """Every metric, then each with its interval and what a guess gives."""
    if not content["tasks"]:
        return ""
    rows = [["task", "metric", "value", "95 % of resamples", "chance"]]
    for name, metrics in content["tasks"].items():
        intervals, chance = (content.get(key, {}).get(name, {}) for key in ("intervals", "chance"))
        for metric in dict.fromkeys([*intervals, *chance]):
            if metric not in metrics:
                continue
            low, high = intervals.get(metric, (None, None))
            between = "" if low is None else f"{low:.3f} to {high:.3f}"
            guess = f"{chance[metric]:.3f}" if metric in chance else ""
            rows.append([name, metric, f"{metrics[metric]:.3f}", between, guess])
    sure = f"<details><summary>Intervals and chance</summary>{table(rows)}</details>" if len(rows) > 1 else ""
    star = f"<small>{STAR}</small>" if content.get("never_paired") else ""
    return "".join(map(table, task_tables(content))) + star + sure


def stages_section(content: Mapping[str, Any]) -> str:
    """What each stage took and left alone."""
    if not content["stages"]:
        return ""
    rows = [(s["name"], (s.get("encode_seconds", 0.0), s["seconds"])) for s in content["stages"]]
    chart = bars(rows, ("encoding", "training"), "s")
    measured = after_stages(content)
    later = f"<h3>After each stage</h3>{table(measured)}" if measured else ""
    return f'{chart}<div class="stages">{table(stage_rows(content))}</div>{later}'


def curves(metrics: Path) -> str:
    """The loss of each stage over the steps of the run."""
    series: dict[str, list[tuple[float, float]]] = {}
    try:
        for line in metrics.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            loss = record["metrics"].get("loss")
            if isinstance(loss, float) and math.isfinite(loss):
                series.setdefault(record["stage"], []).append((record["step"], loss))
    except (OSError, ValueError):
        return ""
    return line_chart(series, "step", "loss")


def examples_section(examples: Mapping[str, Sequence[Example]]) -> str:
    """For each task a few queries with the nearest candidates; right ones are marked."""
    parts = []
    for name, shown in examples.items():
        rows = "".join(
            f'<div class="row"><div class="query">{item(example.query)}</div>'
            + "".join(
                f'<div class="{"right" if answer.right else "wrong"}">{item(answer.item)}</div>'
                for answer in example.answers
            )
            + "</div>"
            for example in shown
        )
        parts.append(f"<details open><summary>{html.escape(name)}</summary>{rows}</details>")
    note = "<small>A query, then its nearest candidates. Green: one that was looked for.</small>"
    return "".join(parts) + note if parts else ""


def item(shown: Shown) -> str:
    """An item as a picture, a sound or words."""
    under = f"<small>{html.escape(shown.label)}</small>" if shown.label else ""
    if shown.kind.startswith("text/"):
        return f"<span>{html.escape(shown.content.decode(errors='replace'))}</span>{under}"
    source = f"data:{shown.kind};base64,{base64.b64encode(shown.content).decode()}"
    if shown.kind.startswith("audio/"):
        return f'<audio controls preload="metadata" src="{source}"></audio>{under}'
    return f'<img alt="{html.escape(shown.label)}" src="{source}">{under}'


def map_section(gallery: Gallery) -> str:
    """The two directions in which embeddings differ most."""
    chart = scatter(gallery.points, "embeddings in two dimensions")
    note = "<small>Embeddings of every modality along their two principal directions.</small>"
    return chart + note if chart else ""


def health_section(content: Mapping[str, Any]) -> str:
    """Missing, doubled and unreadable samples."""
    rows = content.get("health") or []
    parts = [table([list(rows[0]), *(list(row.values()) for row in rows)])] if rows else []
    bad = content.get("quarantined", 0)
    parts.append(f"<p>{bad} samples could not be read{'; see quarantine.csv' if bad else ''}.</p>")
    return "".join(parts)


def details(name: str, report: Report, pictures: Mapping[str, bytes]) -> str:
    """A task's tables and figures."""
    parts = []
    for title, rows in report.tables.items():
        if rows:
            shown = [[f"{v:.3f}" if isinstance(v, float) else v for v in row.values()] for row in rows]
            parts.append(f"<h4>{html.escape(title)}</h4>{table([list(rows[0]), *shown])}")
    for title, picture in pictures.items():
        source = base64.b64encode(picture).decode()
        parts.append(
            f'<figure><img class="figure" alt="{html.escape(title)}" src="data:image/png;base64,{source}">'
            f"<figcaption>{html.escape(title)}</figcaption></figure>"
        )
    return f"<details><summary>{html.escape(name)}</summary>{''.join(parts)}</details>" if parts else ""


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as a table, the first one its head."""
    cells = ["".join(f"<td>{html.escape('' if c is None else str(c))}</td>" for c in row) for row in rows]
    head = cells[0].replace("td>", "th>")
    inside = "".join(f"<tr>{row}</tr>" for row in cells[1:])
    return f'<div class="wide"><table><tr>{head}</tr>{inside}</table></div>'
