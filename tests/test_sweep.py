"""Sweeps and comparisons: every combination once, checked first, resumed where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modalign.cli.main import main
from modalign.errors import UserError
from modalign.training.sweep import alternatives, combinations

Plan = dict[str, Any]
Write = Callable[..., Path]


def test_commas_inside_are_the_values_own() -> None:
    assert alternatives("seed=0,1, 2") == ["seed=0", "seed=1", "seed=2"]
    assert alternatives("a.b={x: 1, y: [2, 3]},{z: 4}") == ["a.b={x: 1, y: [2, 3]}", "a.b={z: 4}"]
    assert alternatives('name="a, b"') == ['name="a, b"']
    assert alternatives("align=[text, image]") == ["align=[text, image]"]
    assert alternatives("seed=1") == ["seed=1"]


@given(st.lists(st.sampled_from(["1", "[1, 2]", "{a: 1, b: 2}", "'x, y'", "word"]), min_size=1, max_size=6))
def test_what_is_joined_comes_apart_again(values: list[str]) -> None:
    assert alternatives("k=" + ",".join(values)) == [f"k={value}" for value in values]


def test_every_combination_once() -> None:
    found = combinations(["a=1,2", "b=3", "c=4,5,6"])
    assert len(found) == len(set(map(tuple, found))) == 6
    assert found[0] == ["a=1", "b=3", "c=4"]
    assert found[1] == ["a=1", "b=3", "c=5"]
    with pytest.raises(UserError, match="1331 combinations"):
        combinations([f"{key}=0,1,2,3,4,5,6,7,8,9,10" for key in "abc"])


@pytest.fixture
def small(plan: Plan, in_tmp: Path, write_plan: Write) -> str:
    plan["stages"] = plan["stages"][:1]
    plan["stages"][0]["epochs"] = 1
    plan["modalities"].pop("audio")
    plan["tasks"] = [t for t in plan["tasks"] if "audio" not in t.values()]
    plan["track"] = {"uri": f"sqlite:///{in_tmp}/mlflow.db"}
    return str(write_plan(plan))


def test_a_sweep_runs_resumes_and_compares(
    small: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["align", small, "seed=0,1", "stages.image-text.losses={infonce: 1.0},{siglip: 1.0}"]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[0] == "run"
    assert "seed" in printed[0]
    assert "stages.0.losses.siglip" in printed[0]
    assert len(printed) == 5
    folders = sorted(p for p in Path("runs").iterdir() if p.is_dir())
    assert [f.name for f in folders] == [
        f"tiny-seed_{seed}-losses_{loss}_1_0" for seed in (0, 1) for loss in ("infonce", "siglip")
    ]
    reports = [json.loads((f / "report.json").read_text()) for f in folders]
    assert [r["plan"]["seed"] for r in reports] == [0, 0, 1, 1]
    assert {r["plan"]["track"]["experiment"] for r in reports} == {"tiny"}

    stamps = [(f / "report.json").stat().st_mtime_ns for f in folders]
    (folders[3] / "report.json").unlink()
    assert main([*command, "--resume"]) == 0
    assert [(f / "report.json").stat().st_mtime_ns for f in folders[:3]] == stamps[:3]
    capsys.readouterr()

    assert main(["compare", *map(str, folders), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["differences"]["seed"] for run in found] == ["0", "0", "1", "1"]
    assert set(found[0]["differences"]) >= {"seed", "stages.0.losses.infonce", "stages.0.losses.siglip"}
    assert main(["compare", *map(str, folders[:2]), "--metric", "MRR", "--out", "c.html"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "retrieval:image->text MRR" in head
    assert "zero_shot" not in head
    assert len(rows) == 2
    page = Path("c.html").read_text()
    assert page.count("<circle") == 2
    assert folders[0].name in page

    uri = f"sqlite:///{in_tmp}/mlflow.db"
    assert main(["compare", "experiment:tiny", "--uri", uri, "--json"]) == 0
    mirrored = json.loads(capsys.readouterr().out)
    assert [run["tasks"] for run in mirrored] == [run["tasks"] for run in found]


BAD = {
    "a wrong value": (["align", "PLAN", "seed=0,-1"], ["seed", "greater than or equal to 0"]),
    "twice the same": (["align", "PLAN", "seed=1,1"], ["both be called tiny-seed_1"]),
    "no run": (["compare", "./nowhere"], ["./nowhere", "report.json"]),
    "no database": (["compare", "0123"], ["no MLflow database", "--uri"]),
    "no metric": (["compare", "given", "--metric", "F1"], ["no run has the metric 'F1'", "R@1"]),
    "no report": (["compare", "broken"], ["broken", "cannot be read"]),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes(case: str, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = BAD[case]
    Path("broken").mkdir()
    Path("broken/report.json").write_text("{}")
    Path("given").mkdir()
    stage = {"seconds": 1, "trained_parameters": 1, "trained_encoder_parameters": 0}
    given = {"plan": {}, "stages": [stage], "tasks": {"t": {"R@1": 0.5}}}
    Path("given/report.json").write_text(json.dumps(given))
    assert main([small if a == "PLAN" else a for a in arguments]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not Path("runs").exists()
