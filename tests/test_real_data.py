"""What the project promises on real data; skipped where the data folder is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modalign
import pyarrow.parquet as pq
import pytest
import torch
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("MODALIGN_DATA", str(data))
    plan: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    return {**plan, "track": {"uri": None}}


def test_digits_never_paired(shared_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = example("digits.yaml", shared_data, monkeypatch)
    images = dict(plan["modalities"])
    del images["audio"]
    first = modalign.align(
        {**plan, "modalities": images, "stages": plan["stages"][:1], "tasks": []}, out="first"
    )
    space = modalign.align(
        {**plan, "modalities": {"audio": plan["modalities"]["audio"]}, "stages": plan["stages"][1:]},
        start="first/space",
        out="both",
    )
    report = json.loads(Path("both/report.json").read_text())
    for task in ("retrieval:audio->image", "retrieval:image->audio"):
        assert report["tasks"][task]["class_R@1"] >= 0.85, report["tasks"]
    before = json.loads(Path("first/report.json").read_text())["stages"][0]
    stage = report["stages"][0]
    assert stage["trained_parameters"] <= before["trained_parameters"] / 4
    assert set(stage["unchanged"]) == {
        "projection",
        "temperature",
        "image",
        "text",
        "encoder:image",
        "encoder:text",
    }
    rows = pq.read_table(shared_data / "digits.parquet").slice(0, 64).to_pylist()
    for name, values in (("image", [r["image"]["bytes"] for r in rows]), ("text", [r["text"] for r in rows])):
        assert torch.equal(first.embed(name, values), space.embed(name, values))


@pytest.mark.slow
def test_emoji_names_and_other_languages(
    shared_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = example("emoji-languages.yaml", shared_data, monkeypatch)
    for stage in plan["stages"]:
        stage["epochs"] = 4
        stage.pop("select", None)
    modalign.align(plan)
    tasks = json.loads(Path("runs/emoji-languages/report.json").read_text())["tasks"]
    assert {"R@1", "R@10", "median_rank"} <= tasks["retrieval:image->text"].keys()
    assert tasks["retrieval:image->text"]["R@10"] > 3 * 10 / 244
    for language in ("de", "fr", "es", "pt", "ru", "tr", "fi"):
        assert tasks[f"retrieval:{language}->text"]["R@10"] > 2 * 10 / 244  # chance is 10/244
