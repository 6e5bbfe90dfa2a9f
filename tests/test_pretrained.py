"""Spaces on the Hugging Face hub: folders, cards, the offline cache, and a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
import yaml
from modalign import Space
from modalign.hub.card import read_card

from .local_hub import LocalHub

pytest.importorskip("huggingface_hub")

Plan = dict[str, Any]
ABOUT: dict[str, Any] = {
    "license": "apache-2.0",
    "datasets": ["ylecun/mnist"],
    "language": ["en", "de"],
    "tags": ["digits"],
}


@pytest.fixture
def space(plan: Plan, in_tmp: Path) -> Space:
    return modalign.align(plan)


def front(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_saved_and_loaded(space: Space, tmp_path: Path) -> None:
    space.save_pretrained(tmp_path / "mine", **ABOUT)
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {
        "README.md", "config.json", "model.safetensors",
    }  # fmt: skip
    again = Space.from_pretrained(tmp_path / "mine")
    assert torch.equal(again.embed("text", ["one"]), space.embed("text", ["one"]))
    assert again.about == space.about
    again.save(tmp_path / "copy")  # the card is kept
    assert (tmp_path / "copy/README.md").read_text() == (tmp_path / "mine/README.md").read_text()


def test_the_card_is_one_that_the_hub_reads(space: Space, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    space.save_pretrained(tmp_path / "mine", **ABOUT)
    data = ModelCard.load(tmp_path / "mine" / "README.md").data
    assert (data.license, data.library_name, data.datasets) == ("apache-2.0", "modalign", ["ylecun/mnist"])
    assert {"digits", "image", "text", "audio", "modalign"} <= set(data.tags)
    assert data.modalities == ["image", "text", "audio"]
    report = json.loads(Path("runs/tiny/report.json").read_text())["tasks"]
    found = {(r.task_name, r.metric_type): r.metric_value for r in data.eval_results}
    assert found == {(task, key): value for task, metrics in report.items() for key, value in metrics.items()}
    assert {r.dataset_type for r in data.eval_results} == {"ylecun/mnist"}
    assert "R@1" in data.metrics


def test_no_path_of_this_machine_leaves_it(space: Space, plan: Plan, tmp_path: Path) -> None:
    assert space.plan["data"]["table"] == plan["data"]["table"]
    space.plan["track"] = {"uri": "http://ours.example"}
    space.save_pretrained(tmp_path / "mine")
    text = (tmp_path / "mine/config.json").read_text() + (tmp_path / "mine/README.md").read_text()
    assert str(tmp_path) not in text
    assert str(Path(plan["data"]["table"]).parent) not in text
    assert "ours.example" not in text
    assert (
        json.loads((tmp_path / "mine/config.json").read_text())["plan"]["data"]["table"] == "digits.parquet"
    )
    assert space.plan["data"]["table"] == plan["data"]["table"]  # here it stays


@pytest.mark.parametrize(
    ("about", "words"),
    [({"licence": "mit"}, "did you mean 'license'"), ({"datasets": "ylecun/mnist"}, r"\['ylecun/mnist'\]")],
)
def test_wrong_words_about_a_space(space: Space, tmp_path: Path, about: Any, words: str) -> None:
    with pytest.raises(modalign.UserError, match=words):
        space.save_pretrained(tmp_path / "mine", **about)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "text", ["", "# by hand", "---\n[1, 2]\n---\n", "---\n: :\n---\n", "---\nmodel-index: 3\n---\n", "\udce9"]
)
def test_a_card_rewritten_by_hand_stops_nothing(space: Space, text: str, tmp_path: Path) -> None:
    space.save(tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_card(tmp_path / "mine" / "README.md") == {}
    assert modalign.load(tmp_path / "mine").about == {}


def test_nothing_of_that_name(in_tmp: Path) -> None:
    for name, words in (("no/such/folder", "not a space"), ("./gone", "not a space"), ("x", "not a space")):
        with pytest.raises(modalign.UserError, match=words):
            Space.from_pretrained(name)
    with pytest.raises(modalign.UserError, match="me/digits is no folder"):
        Space.from_pretrained("me/digits", local_files_only=True, cache_dir=in_tmp)


# --- the hub -------------------------------------------------------------------------------------

PUSH = """
import sys, json, modalign
space = modalign.load(sys.argv[1])
try:
    info = space.push_to_hub("me/digits", license="mit", commit_message="first")
    print(json.dumps({"oid": info.oid}))
except modalign.UserError as error:
    print(json.dumps({"error": str(error)}))
"""
PULL = """
import sys, json
from modalign import Space, UserError
try:
    space = Space.from_pretrained(sys.argv[1], revision=sys.argv[2] if sys.argv[2:] else None)
    print(json.dumps({"z": space.embed("text", ["one"]).tolist(), "about": space.about}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


def python(code: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """What a program that knows only this hub prints; the client reads its settings on import."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120,
        env={**kept, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_pushed_pulled_and_offline(space: Space, tmp_path: Path) -> None:
    space.save(tmp_path / "mine")
    with LocalHub() as hub:
        known = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_local"}
        pushed = python(PUSH, str(tmp_path / "mine"), **known)
        assert set(hub.files["me/digits"]) == {"README.md", "config.json", "model.safetensors"}
        assert pushed["oid"] == hub.commit("me/digits")
        wanted = space.embed("text", ["one"])
        found = python(PULL, "me/digits", **known)
        assert torch.allclose(torch.tensor(found["z"]), wanted, atol=1e-6)
        assert found["about"]["license"] == "mit"
        assert "no/thing is no folder here" in python(PULL, "no/thing", **known)["error"]
        python(PUSH, str(tmp_path / "mine"), **known)  # once more: it is there already
    offline = {**known, "HF_HUB_OFFLINE": "1"}  # the hub is gone
    assert python(PULL, "me/digits", **offline)["z"] == found["z"]
    assert "me/other is no folder here" in python(PULL, "me/other", **offline)["error"]
    assert "hub does not take me/digits" in python(PUSH, str(tmp_path / "mine"), **known)["error"]
