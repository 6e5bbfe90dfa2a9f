"""The report page: whole, self-contained, and safe with what strangers wrote."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import modalign
import pytest
from modalign.contracts import Report
from modalign.report import Answer, Example, Gallery, Shown, write
from modalign.report.svg import bars, heat_map, line_chart, scatter, thinned
from modalign.report.tables import after_stages, task_tables

Plan = dict[str, Any]
NASTY = "<script>alert('x')</script>&\"'"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def finished(plan: Plan, in_tmp: Path) -> Path:
    plan["modalities"]["image"]["augment"] = True
    modalign.align(plan)
    return in_tmp / "runs" / "tiny"


def test_the_page_of_a_run(finished: Path) -> None:
    page = Page((finished / "report.html").read_text())
    sections = [s["id"] for s in page.named("section")]
    assert sections == [
        "summary",
        "tasks",
        "stages",
        "examples",
        "map",
        "details",
        "data",
        "environment",
        "plan",
    ]
    assert [a["href"] for a in page.named("a")] == [f"#{s}" for s in sections]
    labels = [svg["aria-label"] for svg in page.named("svg")]
    assert labels == [
        "retrieval of each pair",
        "encoding and training",
        "loss by step",
        "embeddings in two dimensions",
    ]
    assert len(page.named("polyline")) == 2  # a curve per stage
    assert len(page.named("circle")) > 30
    assert any((i["src"] or "").startswith("data:image/png") for i in page.named("img"))
    assert any((a["src"] or "").startswith("data:audio/") for a in page.named("audio"))
    assert "eins" in page.text or "zwei" in page.text
    for _, attributes in page.tags:
        assert not any((attributes.get(key) or "").startswith(("http", "//")) for key in ("src", "href"))


def test_tasks_know_what_was_just_trained_together(plan: Plan, in_tmp: Path) -> None:
    plan["tasks"] = [{"name": "matrix", "id": "last", "among": ["text", "audio"]}]
    modalign.align(plan)
    metrics = json.loads(Path("runs/tiny/report.json").read_text())["tasks"]["last"]
    assert "R@1_trained" in metrics
    assert "R@1_untrained" not in metrics


def test_the_health_of_the_data(finished: Path) -> None:
    rows = json.loads((finished / "report.json").read_text())["health"]
    found = {(r["modality"], r["split"]): r for r in rows}
    assert len(found) == 9
    assert found["image", "train"] == {
        "modality": "image", "split": "train", "rows": 120, "missing": 0, "unpaired": 0, "distinct": 120,
        "also in train": None,
    }  # fmt: skip
    assert found["text", "test"]["also in train"] == found["text", "test"]["distinct"] > 1
    assert found["image", "test"]["also in train"] == 0


def content(**more: Any) -> dict[str, Any]:
    stage = {
        "name": NASTY, "align": ["image", NASTY], "seconds": 1.0, "trained_parameters": 3,
        "trained_encoder_parameters": 0, "loss": 1.0, "unchanged": [NASTY],
    }  # fmt: skip
    tasks = {NASTY: {"R@1": 0.5}}
    return {
        "plan": {"name": NASTY, "tasks": []}, "versions": {NASTY: NASTY}, "stages": [stage], "tasks": tasks,
        "intervals": {NASTY: {"R@1": [0.4, 0.6]}}, "chance": {NASTY: {"R@1": 0.1}}, "health": [{NASTY: NASTY}],
        **more,
    }  # fmt: skip


def test_nothing_that_strangers_wrote_becomes_markup(tmp_path: Path) -> None:
    nasty = Shown("text/plain", NASTY.encode() + b"\xff", NASTY)
    picture = Shown("image/png", b"not a picture", NASTY)
    gallery = Gallery({NASTY: [Example(nasty, [Answer(picture, True)])]}, {NASTY: [(0.0, 1.0, NASTY)] * 3})
    report = Report({"R@1": 0.5}, tables={NASTY: [{NASTY: NASTY}]})
    write(tmp_path, content(), {NASTY: report}, gallery)
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    page = Page(text)
    assert page.text.count(NASTY) > 10
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert "default-src 'none'" in str(page.named("meta"))
    assert page.named("img")[0]["alt"] == NASTY


def test_a_page_without_tasks_or_gallery(tmp_path: Path) -> None:
    write(tmp_path, content(tasks={}, intervals={}, chance={}, health=[]), {})
    ids = [s["id"] for s in Page((tmp_path / "report.html").read_text()).named("section")]
    assert ids == ["summary", "stages", "data", "environment", "plan"]


def test_tasks_with_metrics_in_common_share_a_table() -> None:
    recall = {"R@1": 0.5, "R@5": 0.6, "MRR": 0.7}
    tasks = {"a": recall, "gap": {"gap": 0.1}, "b": {**recall, "class_R@1": 1.0}}
    first, second = task_tables({"tasks": tasks, "never_paired": ["b"]})
    assert first == [
        ["task", "R@1", "R@5", "MRR", "class_R@1"],
        ["a", "0.500", "0.600", "0.700", ""],
        ["b *", "0.500", "0.600", "0.700", "1.000"],
    ]
    assert second == [["task", "gap"], ["gap", "0.100"]]


def test_what_a_later_stage_did_to_an_earlier_task() -> None:
    def stage(name: str, **tasks: float) -> dict[str, Any]:
        return {"name": name, "tasks": {task: {"R@1": value, "MRR": 0.0} for task, value in tasks.items()}}

    stages = [stage("one", a=0.5), stage("two", a=0.4, b=0.7)]
    found = after_stages({"stages": stages, "primary": {"a": "R@1", "b": "R@1"}})
    assert found == [
        ["task", "metric", "one", "two", "since the first"],
        ["a", "R@1", "0.500", "0.400", "-0.100"],
    ]
    assert after_stages({"stages": stages[1:], "primary": {"a": "R@1"}}) == []


def test_charts_at_their_edges() -> None:
    assert line_chart({"a": [(1, 2)]}, "x", "y") == ""
    flat = line_chart({"a": [(1, 5.0), (2, 5.0)], "b": [(1, 5.0), (3, 5.0)]}, "x", "y")
    long = line_chart({"a": [(i, float(i)) for i in range(10_001)]}, "x", "y")
    chart = heat_map({("a", "b"): (1.7, True), ("b", "a"): (-3.0, False)}, "t")
    for svg in (
        flat,
        long,
        chart,
        scatter({"a": [(1, 1, "")]}, "t"),
        bars([("a", [0.0, 0.0])], ("x", "y"), "s"),
    ):
        assert "nan" not in svg
        assert "inf" not in svg
        numbers = [float(n) for n in re.findall(r'(?:x|y|width|height|cx|cy)="(-?[\d.]+)"', svg)]
        assert all(0 <= n <= 2000 for n in numbers)
    assert 0 < long.count(",") < 500
    assert scatter({}, "t") == ""
    points = [(float(i), 0.0) for i in range(10)]
    assert thinned(points, 3)[-1] == (9.0, 0.0)
    assert list(thinned(points, 10)) == points


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_has_nothing_to_complain_about(finished: Path) -> None:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", (finished / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    page = Page(done.stdout)
    assert len(page.named("section")) == 9


def test_an_evaluation_leaves_a_page_too(finished: Path, plan: Plan) -> None:
    from modalign.training.eval import evaluate

    evaluate(finished / "space", plan, out=Path("checked"))
    content = json.loads(Path("checked/report.json").read_text())
    assert content["tasks"] == json.loads((finished / "report.json").read_text())["tasks"]
    low, high = content["intervals"]["retrieval:image->text"]["R@1"]
    assert low <= content["tasks"]["retrieval:image->text"]["R@1"] <= high
    page = Page(Path("checked/report.html").read_text())
    ids = [s["id"] for s in page.named("section")]
    assert ids == ["summary", "tasks", "examples", "map", "details", "data", "environment", "plan"]
