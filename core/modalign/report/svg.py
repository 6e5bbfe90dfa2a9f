"""Small charts as SVG that takes the page's colours, in light and in dark."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#eab308", "#06b6d4", "#ec4899")
WIDTH, HEIGHT = 800, 300
LEFT, BOTTOM = 60, 30
Points = Sequence[tuple[float, float]]


def colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def legend(names: Sequence[str]) -> str:
    """Names beside their colours."""
    keys = (f'<span style="--c:{colour(i)}">{html.escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{" ".join(keys)}</p>'


def line_chart(series: Mapping[str, Points], x: str, y: str, wide: int = 400) -> str:
    """Lines over one axis; each is thinned to ``wide`` points. Nothing if no line has two."""
    series = {name: thinned(points, wide) for name, points in series.items() if len(points) > 1}
    if not series:
        return ""
    every = [point for points in series.values() for point in points]
    (x0, x1), (y0, y1) = (span([p[i] for p in every]) for i in (0, 1))

    def place(point: tuple[float, float]) -> str:
        across = LEFT + (point[0] - x0) / (x1 - x0) * (WIDTH - LEFT - 10)
        up = HEIGHT - BOTTOM - (point[1] - y0) / (y1 - y0) * (HEIGHT - BOTTOM - 10)
        return f"{across:.1f},{up:.1f}"

    lines = "".join(
        f'<polyline style="stroke:{colour(i)}" points="{" ".join(map(place, points))}"><title>'
        f"{html.escape(name)}</title></polyline>"
        for i, (name, points) in enumerate(series.items())
    )
    axes = "".join(
        f'<text x="{LEFT - 8}" y="{HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 10):.0f}" '
        f'text-anchor="end">{y0 + share * (y1 - y0):.3g}</text>'
        for share in (0, 0.5, 1)
    )
    axes += (
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{x0:.6g}</text>'
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end">{x1:.6g}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x)}</text>'
    )
    return _svg(lines + axes, f"{y} by {x}", WIDTH, HEIGHT) + (
        legend(list(series)) if len(series) > 1 else ""
    )


def heat_map(cells: Mapping[tuple[str, str], tuple[float, bool]], title: str) -> str:
    """A square per pair ``(row, column)``: its value, 0 to 1, darker for more; a star where flagged."""
    names = list(dict.fromkeys(name for pair in cells for name in pair))
    side, left = 90, 120
    parts = []
    for j, name in enumerate(names):
        short = html.escape(name)
        parts.append(f'<text x="{left + (j + 0.5) * side}" y="24" text-anchor="middle">{short}</text>')
        parts.append(f'<text x="{left - 10}" y="{40 + (j + 0.55) * side}" text-anchor="end">{short}</text>')
    for (row, column), (value, starred) in cells.items():
        x, y = left + names.index(column) * side, 40 + names.index(row) * side
        shade = min(1.0, max(0.0, value))
        parts.append(
            f'<rect x="{x + 2}" y="{y + 2}" width="{side - 4}" height="{side - 4}" rx="8" '
            f'style="fill:{COLOURS[0]};fill-opacity:{0.08 + 0.6 * shade:.2f}"/>'
            f'<text x="{x + side / 2}" y="{y + side / 2 + 5}" text-anchor="middle">{value:.3f}'
            f"{' *' * starred}</text>"
        )
    size = left + len(names) * side
    return _svg("".join(parts), title, size, 40 + len(names) * side, most=size)


def scatter(groups: Mapping[str, Sequence[tuple[float, float, str]]], title: str) -> str:
    """Points ``(x, y, label)`` by group; the label shows when a point is pointed at."""
    every = [(x, y) for points in groups.values() for x, y, _ in points]
    if not every:
        return ""
    (x0, x1), (y0, y1) = (span([p[i] for p in every]) for i in (0, 1))
    high = 460
    dots = "".join(
        f'<circle cx="{10 + (x - x0) / (x1 - x0) * (WIDTH - 20):.1f}" '
        f'cy="{10 + (y1 - y) / (y1 - y0) * (high - 20):.1f}" r="4" style="fill:{colour(i)}">'
        f"<title>{html.escape(f'{name}: {label}' if label else name)}</title></circle>"
        for i, (name, points) in enumerate(groups.items())
        for x, y, label in points
    )
    return _svg(dots, title, WIDTH, high) + legend(list(groups))


def bars(rows: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str], unit: str) -> str:
    """One bar per row, made of the parts' lengths."""
    whole = max((sum(values) for _, values in rows), default=0) or 1.0
    lines = []
    for i, (name, values) in enumerate(rows):
        y, x = 10 + i * 34, 180.0
        lines.append(f'<text x="{x - 10}" y="{y + 17}" text-anchor="end">{html.escape(name)}</text>')
        for j, value in enumerate(values):
            width = value / whole * (WIDTH - 270)
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" height="24" '
                f'style="fill:{colour(j)}"/>'
            )
            x += width
        lines.append(f'<text x="{x + 8:.1f}" y="{y + 17}">{sum(values):.1f} {unit}</text>')
    return _svg("".join(lines), " and ".join(parts), WIDTH, 20 + 34 * len(rows)) + legend(parts)


def intervals_chart(points: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """A row per name: its value as a dot, ``low`` to ``high`` as a line."""
    if not points:
        return ""
    left, right = span([bound for _, value, low, high in points for bound in (value, low, high)])

    def across(value: float) -> float:
        return 260 + (value - left) / (right - left) * (WIDTH - 350)

    rows = "".join(
        f'<text x="250" y="{22 + i * 30}" text-anchor="end">{html.escape(name)}</text>'
        f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{17 + i * 30}" y2="{17 + i * 30}" '
        f'style="stroke:{COLOURS[0]};stroke-width:3;stroke-opacity:.5"/>'
        f'<circle cx="{across(value):.1f}" cy="{17 + i * 30}" r="5" style="fill:{COLOURS[0]}"/>'
        f'<text x="{WIDTH - 5}" y="{22 + i * 30}" text-anchor="end">{value:.3f}</text>'
        for i, (name, value, low, high) in enumerate(points)
    )
    return _svg(rows, title, WIDTH, 10 + 30 * len(points))


def thinned(points: Points, most: int) -> Points:
    """At most so many of the points, evenly, the last one among them."""
    step = math.ceil(len(points) / most)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def span(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest, never the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _svg(inside: str, title: str, width: float, height: float, most: float | None = None) -> str:
    limit = f' style="max-width:{most:.0f}px"' if most else ""
    return (
        f'<figure><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{html.escape(title)}"'
        f"{limit}>{inside}</svg></figure>"
    )
