"""Wrong plans: every problem at once, with line and suggestion, exit status 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import modalign
import pytest
from modalign.cli.main import main

Plan = dict[str, Any]
Write = Callable[..., Path]


def _set(*path: str | int, to: Any) -> Callable[[Plan], None]:
    def change(plan: Plan) -> None:
        node: Any = plan
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[Plan], None]:
    def change(plan: Plan) -> None:
        node: Any = plan
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]

    return change


BAD: dict[str, tuple[Callable[[Plan], None], list[str]]] = {
    "unknown key": (_set("stages", 0, "epohcs", to=3), ["stages.0.epohcs", "unknown key", "'epochs'"]),
    "unknown top key": (_set("modalitys", to={}), ["modalitys", "'modalities'"]),
    "wrong type": (_set("stages", 1, "batch_size", to="many"), ["stages.1.batch_size", "integer", "'many'"]),
    "out of range": (_set("stages", 0, "epochs", to=0), ["stages.0.epochs", "greater than or equal to 1"]),
    "no tables": (_set("data", to={"tables": {}}), ["data.tables", "at least 1"]),
    "no mixture": (_set("data", to={"mix": []}), ["data.mix", "at least 1"]),
    "a space beyond any memory": (_set("space", "dim", to=10**18), ["space.projection"]),
    "a modality that is a mapping": (
        _set("tasks", 0, to={"name": "missing", "modalities": [{"a": 1}, "text"]}),
        ["tasks.0"],
    ),
    "bad name": (_set("name", to="a/b"), ["name", "letters, digits"]),
    "no name": (_drop("name"), ["name", "missing"]),
    "unknown encoder": (_set("modalities", "image", "encoder", to="smal-vit"), ["smal-vit", "small-vit"]),
    "unknown argument": (
        _set("modalities", "image", "encoder", to={"name": "small-vit", "widht": 8}),
        ["modalities.image.encoder", "'widht'", "'width'"],
    ),
    "missing argument": (_set("modalities", "text", "encoder", to="hf-text"), ["hf-text", "'model'"]),
    "wrong reader argument": (
        _set("modalities", "audio", "read", to={"rat": 8000}),
        ["modalities.audio.read", "'rat'", "'rate'"],
    ),
    "unknown loss": (_set("stages", 0, "losses", to={"infonec": 1.0}), ["infonec", "'infonce'"]),
    "loss without weight": (_set("stages", 0, "losses", to={"infonce": "big"}), ["infonce", "weight"]),
    "unknown projection": (_set("space", "projection", to="univrsal"), ["space.projection", "'universal'"]),
    "wrong projection value": (
        _set("space", "projection", to={"name": "universal", "width": 16, "heads": 3}),
        ["space.projection", "heads"],
    ),
    "unknown task": (_set("tasks", 0, "name", to="retrievel"), ["retrievel", "'retrieval'"]),
    "task of unknown modality": (_set("tasks", 0, "from", to="imag"), ["tasks.0", "'imag'", "'image'"]),
    "task of unknown split": (_set("tasks", 0, "split", to="tset"), ["tasks.0.split", "'tset'", "'test'"]),
    "same task twice": (
        _set("tasks", 1, to={"name": "retrieval", "from": "image", "to": "text"}),
        ["two tasks"],
    ),
    "unknown modality in align": (
        _set("stages", 1, "align", to=["audoi", "text"]),
        ["stages.1.align", "'audoi'", "'audio'"],
    ),
    "anchor not aligned yet": (
        lambda p: p["stages"].insert(1, {**p["stages"][1], "name": "early", "align": ["audio"]}),
        ["stages.1.align", "none of audio is aligned yet", "image, text"],
    ),
    "nothing new": (_set("stages", 1, "align", to=["image", "text"]), ["stages.1.align", "unfreeze"]),
    "modality never aligned": (_drop("stages", 1), ["modalities.audio", "no stage"]),
    "two stages of one name": (_set("stages", 1, "name", to="image-text"), ["stages.1.name", "two stages"]),
    "unknown part to unfreeze": (
        _set("stages", 1, "unfreeze", to=["projektion"]),
        ["stages.1.unfreeze", "'projektion'", "'projection'"],
    ),
    "pair outside align": (
        _set("stages", 0, "pairs", to=[["image", "audio"]]),
        ["stages.0.pairs", "'audio'"],
    ),
    "missing file": (_set("data", "table", to="none.parquet"), ["data.table", "none.parquet"]),
    "missing column": (
        _set("data", "columns", to={"image": "picture", "text": "text", "audio": "audio"}),
        ["data.columns", "'picture'", "it has: image"],
    ),
    "missing split column": (_set("data", "split", to="splitt"), ["'splitt'", "'split'"]),
    "no column for a modality": (
        _set("data", "columns", to={"image": "image", "text": "text"}),
        ["data.columns", "no column for 'audio'"],
    ),
    "no data": (_drop("data"), ["stages.0.data", "there is no data"]),
    "table and tables": (
        _set("data", "tables", to={"train": "a.csv"}),
        ["data", "either 'table', 'tables' or 'dataset'"],
    ),
    "unset variable": (_set("data", "table", to="${NOT_SET_ANYWHERE}/a.csv"), ["NOT_SET_ANYWHERE", "export"]),
    "wrong kind of table": (_set("data", "table", to=__file__), [".py", ".parquet"]),
    "select of no task": (
        _set("stages", 0, "select", to={"task": "zero"}),
        ["stages.0.select.task", "'zero'"],
    ),
    "select of a later modality": (
        _set("stages", 0, "select", to={"task": "retrieval:audio->image"}),
        ["stages.0.select.task", "audio", "not aligned"],
    ),
    "precision that would change frozen weights": (
        _set("fabric", "precision", to="bf16-true"),
        ["fabric.precision", "bf16-mixed"],
    ),
    "no stages": (_set("stages", to=[]), ["stages", "no stages"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_plan_says_so_and_leaves_nothing(
    kind: str, plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = BAD[kind]
    change(plan)
    file = write_plan(plan)
    assert main(["align", str(file)]) == 2
    captured = capsys.readouterr()
    message = captured.err
    for word in words:
        assert word in message, message
    assert "Traceback" not in message
    assert captured.out == ""
    assert sorted(p.name for p in in_tmp.iterdir()) == ["plan.yaml"]


def test_all_problems_come_at_once_with_their_lines(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("unknown key", "unknown encoder", "unknown loss", "missing file", "unknown task"):
        BAD[kind][0](plan)
    file = write_plan(plan)
    assert main(["align", str(file)]) == 2
    message = capsys.readouterr().err
    assert "5 problems" in message
    lines = file.read_text().splitlines()
    for word in ("epohcs", "smal-vit", "infonec", "none.parquet", "retrievel"):
        number = next(i for i, line in enumerate(lines, 1) if word in line)
        (shown,) = (text for text in message.splitlines() if word in text)
        # A component's line is that of its key or of the value below it.
        assert any(f"plan.yaml:{n}:" in shown for n in (number, number - 1)), (shown, number)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nstages: [\n", ["not valid YAML"]),
        ("- a\n- b\n", ["mapping"]),
        ("", ["mapping"]),
        ("name: x\nname: y\nstages: []\n", ["twice"]),
        ("name: !!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
    ],
)
def test_what_is_no_plan(
    text: str, words: list[str], write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", str(write_plan(text))]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_no_such_plan_names_those_there(
    write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan("name: x\n", "digits.yaml")
    assert main(["align", "digit.yaml"]) == 2
    assert "digits.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("seed", "key.path=value"),
        ("stages.9.epochs=1", "image-text"),
        ("stages.image-text.epohcs=1", "'epochs'"),
    ],
)
def test_wrong_overrides(
    override: str, word: str, plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", str(write_plan(plan)), override]) == 2
    assert word in capsys.readouterr().err


def test_overrides_reach_the_run(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_plan(plan)
    assert main(["align", str(file), "--dry-run", "stages.image-text.epochs=7", "stages.1.lr=1e-4"]) == 0
    out = capsys.readouterr().out
    assert "28" in out  # 7 epochs of 4 steps
    assert not (in_tmp / "runs").exists()


def test_resume_without_a_run_and_with_another_plan(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_plan(plan)
    assert main(["align", str(file), "--resume"]) == 2
    assert "no run to resume" in capsys.readouterr().err
    assert main(["align", str(file), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["align", str(file), "--resume", "stages.0.lr=0.5"]) == 2
    assert "stages.0.lr" in capsys.readouterr().err


def test_a_modality_the_space_has_already(plan: Plan, write_plan: Write, in_tmp: Path) -> None:
    modalign.align(plan, out="both")
    with pytest.raises(modalign.UserError, match="in the space already"):
        modalign.align(plan, start="both/space")
    assert not (in_tmp / "runs").exists()


def test_from_something_that_is_no_space(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", str(write_plan(plan)), "--from", "nowhere"]) == 2
    assert "not a space" in capsys.readouterr().err


def test_a_folder_that_is_no_run(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "mine").mkdir()
    (in_tmp / "mine" / "thesis.txt").write_text("precious")
    assert main(["align", str(write_plan(plan)), "--out", "mine"]) == 2
    assert "--out" in capsys.readouterr().err
    assert (in_tmp / "mine" / "thesis.txt").read_text() == "precious"


def test_a_loss_that_needs_what_the_plan_does_not_give(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.losses import InfoNCE

    monkeypatch.setattr(InfoNCE, "needs", frozenset({"labels", "log_sigma"}))
    del plan["data"]["label"], plan["tasks"][2]
    with pytest.raises(modalign.UserError) as error:
        modalign.align(plan)
    assert "needs 'labels'" in str(error.value)
    assert "data.label" in str(error.value)
    assert "needs 'log_sigma'" in str(error.value)


def test_names_the_space_needs_itself(plan: Plan, in_tmp: Path) -> None:
    plan["modalities"]["temperature"] = plan["modalities"].pop("audio")
    plan["modalities"]["values"] = {"encoder": "minilm"}
    with pytest.raises(modalign.UserError) as error:
        modalign.align(plan)
    assert "'temperature' is a name the space needs" in str(error.value)
    assert "'values' is a name the space needs" in str(error.value)


def test_a_project_with_a_plan_in_it_is_no_run_folder(plan: Plan, write_plan: Write, in_tmp: Path) -> None:
    (in_tmp / "project").mkdir()
    (in_tmp / "project" / "plan.yaml").write_text("name: mine")
    assert main(["align", str(write_plan(plan)), "--out", "project"]) == 2
    assert (in_tmp / "project" / "plan.yaml").read_text() == "name: mine"


def test_the_space_must_not_lie_in_the_folder_to_be_written(plan: Plan, in_tmp: Path) -> None:
    one = dict(plan["modalities"])
    audio = {"audio": one.pop("audio")}
    modalign.align({**plan, "modalities": one, "stages": plan["stages"][:1], "tasks": []})
    with pytest.raises(modalign.UserError, match="another name"):
        modalign.align({**plan, "modalities": audio, "stages": plan["stages"][1:]}, start="runs/tiny/space")
