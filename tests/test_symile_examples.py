"""Symile beside pairwise InfoNCE: the twins are fair, and on real data they do as promised."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from modalign.training.dry_run import describe

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("digits_sum", "m3_emoji")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """Imports one of the scripts as python finds it: by its folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        assert Path(str(module.__file__)).parent == EXAMPLES
        return module

    yield load
    for name in NAMES:
        sys.modules.pop(name, None)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in leaves(inner, (*place, key)).items()}
    return {place: value}


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_differs_in_the_loss_and_in_what_the_loss_needs(example, name):
    symile, pairs = example("digits_sum").plans(EXAMPLES / f"{name}.yaml").values()
    assert symile == yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    one, other = leaves(symile), leaves(pairs)
    differ = {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}
    loss = ("stages", 0, "losses")
    assert all(
        k == ("name",) or k[:3] == loss or k[:2] == ("space", "temperature") or k[-1] == "combine"
        for k in differ
    ), differ
    assert {k[3] for k in differ if k[:3] == loss} == {"symile", "infonce"}
    asked_together = [t for t in pairs["tasks"] if "combine" in t]
    assert [t["combine"] for t in asked_together] == ["sum"] * len(asked_together)
    assert asked_together


@pytest.mark.parametrize("name", NAMES)
def test_both_plans_would_run(example, shared_data, monkeypatch, write_plan, name):
    monkeypatch.setenv("MODALIGN_DATA", str(shared_data))
    monkeypatch.setattr("modalign.training.stage_probe.SECONDS", 0.5)
    for plan in example("digits_sum").plans(EXAMPLES / f"{name}.yaml").values():
        assert plan["stages"][0]["name"] in describe(write_plan(plan))


class OneHot:
    """A space of five pictures, an axis each; a text is both its words', a voice one half of them."""

    def embed(self, modality: str, values: list[Any]) -> torch.Tensor:
        kinds = {"image": 5, "audio": 2, "text": 5}
        if modality == "audio":
            return torch.tensor(
                [[1.0] * 5 + [0.0] * 5 if v == "en" else [0.0] * 5 + [1.0] * 5 for v in values]
            )
        rows = torch.zeros(len(values), 2, kinds[modality])
        for row, value in zip(rows, values, strict=True):
            for half, word in enumerate(value):
                row[half, word] = 1
        return rows.flatten(1)


@pytest.mark.parametrize(("combine", "expected"), [("product", 1.0), ("sum", 0.5)])
def test_right_of_two_needs_the_voice(example, combine, expected):
    rows = []
    for target in range(5):
        other = (target + 1) % 5
        for language, words in (("en", (target, other)), ("zh", (other, target))):
            rows.append(
                {
                    "image": (target, target),
                    "audio": language,
                    "text": words,
                    "target": target,
                    "distractor": other,
                }
            )
    assert example("m3_emoji").right_of_two(OneHot(), rows, combine) == expected


def run(example, shared_data: Path, monkeypatch, name: str, capsys) -> list[str]:
    monkeypatch.setenv("MODALIGN_DATA", str(shared_data))
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    capsys.readouterr()
    example(name).main()
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_digits_sum_is_learnt_by_symile_only(example, shared_data, in_tmp, monkeypatch, capsys):
    lines = run(example, shared_data, monkeypatch, "digits_sum", capsys)
    said = dict(re.findall(r"^(symile|infonce) +accuracy ([\d.]+)", "\n".join(lines), re.M))
    assert float(said["symile"]) >= 0.85
    assert float(said["infonce"]) <= 0.20
    for name in ("digits_sum", "digits_sum_pairs"):
        tasks = json.loads(Path(f"runs/{name}/report.json").read_text())["tasks"]
        for alone in ("zero_shot:image", "zero_shot:audio"):  # one digit says nothing
            assert tasks[alone]["accuracy"] <= 0.20
