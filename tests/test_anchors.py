"""Anchors: what a stage leaves alone is embedded once, and nothing changes by that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
from modalign.losses import InfoNCE
from modalign.space import Space
from modalign.training import stage_run
from modalign.training.anchors import Anchor, with_anchors
from modalign.training.content import Loaded
from modalign.training.reader import Reader

Plan = dict[str, Any]


def losses_of(run: str) -> list[float]:
    lines = Path(run, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"]["loss"] for line in lines if '"lr"' in line]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which modalities were anchors, stage by stage."""
    found: list[set[str]] = []

    def spy(*arguments: Any) -> dict[str, Any]:
        readers = with_anchors(*arguments)
        found.append({m for m, reader in readers.items() if isinstance(reader, Anchor)})
        return readers

    monkeypatch.setattr(stage_run, "with_anchors", spy)
    return found


def test_they_change_nothing_but_the_time(
    plan: Plan, in_tmp: Path, used: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan["stages"][1] |= {
        "align": ["audio", "text", "image"],
        "pairs": [["audio", "text"], ["audio", "image"]],
    }
    modalign.align(plan, out="with")
    monkeypatch.setattr("modalign.training.anchors.MOST_BYTES", 0)
    modalign.align(plan, out="without")
    assert used == [set(), {"text", "image"}, set(), set()]
    assert losses_of("with") == pytest.approx(losses_of("without"), rel=1e-5)
    a, b = (json.loads(Path(run, "report.json").read_text())["stages"][1] for run in ("with", "without"))
    assert a["unchanged"] == b["unchanged"]
    assert a["cache"].keys() == b["cache"].keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["stages"][1].update(unfreeze=["projection"]),
        lambda plan: plan["stages"][1].update(unfreeze=["text"]),
        lambda plan: plan.update(cache=False),
        lambda plan: plan["modalities"]["text"].update(augment={"views": 2}),
        lambda plan: plan["stages"][1].update(losses={"late_interaction": 1.0}),
    ],
    ids=["projection", "text", "no cache", "views", "tokens"],
)
def test_what_moves_or_varies_or_is_asked_for_tokens_is_none(
    plan: Plan, in_tmp: Path, used: list[set[str]], change: Any
) -> None:
    plan["tasks"], plan["stages"][0]["epochs"], plan["stages"][1]["epochs"] = [], 1, 1
    change(plan)
    modalign.align(plan)
    assert used[1] == set()


def test_each_row_is_the_embedding_of_the_alternative_that_its_reader_draws(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Space, Reader, Anchor]] = []
    build = Anchor.__init__

    def spy(self: Anchor, space: Space, reader: Reader, rows: Any) -> None:
        build(self, space, reader, rows)
        seen.append((space, reader, self))

    monkeypatch.setattr(Anchor, "__init__", spy)
    modalign.align(plan)
    ((space, reader, anchor),) = seen
    rows = list(reader.dataset.splits["train"])[:20]
    for epoch in (0, 1, 2):
        got, want = anchor.load(rows, epoch), reader.load(rows, epoch)
        assert torch.equal(got.ids, want.ids)
        assert torch.equal(got.present, want.present)
        torch.testing.assert_close(got.content.vectors, project(space, reader.name, want))
    assert InfoNCE.needs <= {"labels"}


def project(space: Space, name: str, loaded: Loaded) -> torch.Tensor:
    with torch.no_grad():
        return space.project(name, loaded.content).vectors
