"""Progressive alignment end to end: real images, names and sounds, trained in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modalign
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from modalign import UserError
from modalign.training.eval import evaluate
from safetensors.torch import load_file

Plan = dict[str, Any]


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def test_two_stages_leave_the_first_untouched(plan: Plan, in_tmp: Path, digits: Path) -> None:
    first = {**plan, "stages": plan["stages"][:1], "tasks": []}
    del (modalities := dict(plan["modalities"]))["audio"]
    before = modalign.align({**first, "modalities": modalities}, out="one")
    space = modalign.align(plan, out="two")
    rows = pq.read_table(digits).slice(0, 20).to_pylist()
    images, texts = [r["image"]["bytes"] for r in rows], [r["text"][0] for r in rows]
    assert torch.equal(before.embed("image", images), space.embed("image", images))
    assert torch.equal(before.embed("text", texts), space.embed("text", texts))
    stages = report(Path("two"))["stages"]
    assert set(stages[1]["unchanged"]) == {
        "projection",
        "temperature",
        "image",
        "text",
        "encoder:image",
        "encoder:text",
    }
    assert stages[0]["unchanged"] == []
    assert stages[1]["trained"] == ["audio", "encoder:audio"]
    assert space.modalities == ("image", "text", "audio")


def test_unpaired_modalities_find_each_other(plan: Plan, in_tmp: Path) -> None:
    for stage in plan["stages"]:
        stage["epochs"] = 30
    modalign.align(plan)
    tasks = report(Path("runs/tiny"))["tasks"]
    assert set(tasks) == {"retrieval:image->text", "retrieval:audio->image", "zero_shot:image"}
    assert tasks["retrieval:audio->image"]["class_R@1"] >= 0.6  # chance 0.1; never trained together
    assert tasks["zero_shot:image"]["accuracy"] >= 0.6
    assert report(Path("runs/tiny"))["never_paired"] == ["retrieval:audio->image"]


def test_adding_to_a_finished_space_equals_the_two_stage_plan(plan: Plan, in_tmp: Path) -> None:
    modalign.align(plan, out="both")
    one = dict(plan["modalities"])
    audio = {"audio": one.pop("audio")}
    modalign.align(
        {**plan, "modalities": one, "stages": plan["stages"][:1], "tasks": plan["tasks"][:1]}, out="one"
    )
    modalign.align(
        {**plan, "modalities": audio, "stages": plan["stages"][1:]}, start="one/space", out="added"
    )
    both, added = (load_file(f"{run}/space/model.safetensors") for run in ("both", "added"))
    assert both.keys() == added.keys()
    for name, tensor in both.items():
        assert torch.equal(tensor, added[name]), name
    assert report(Path("both"))["tasks"] == report(Path("added"))["tasks"]


def test_the_start_space_is_left_as_it_was(plan: Plan, in_tmp: Path) -> None:
    one = dict(plan["modalities"])
    audio = {"audio": one.pop("audio")}
    start = modalign.align({**plan, "modalities": one, "stages": plan["stages"][:1], "tasks": []}, out="one")
    before = {k: v.clone() for k, v in start.state_dict().items()}
    modalign.align({**plan, "modalities": audio, "stages": plan["stages"][1:]}, start=start, out="added")
    assert start.modalities == ("image", "text")
    assert all(torch.equal(v, start.state_dict()[k]) for k, v in before.items())


def test_the_same_plan_gives_the_same_bytes(plan: Plan, in_tmp: Path) -> None:
    modalign.align(plan, out="a")
    modalign.align(plan, out="b")
    assert Path("a/space/model.safetensors").read_bytes() == Path("b/space/model.safetensors").read_bytes()
    modalign.align({**plan, "seed": 1}, out="c")
    assert Path("a/space/model.safetensors").read_bytes() != Path("c/space/model.safetensors").read_bytes()


def test_any_aligned_modality_may_be_the_anchor_and_several_at_once(plan: Plan, in_tmp: Path) -> None:
    plan["stages"][1]["align"] = ["audio", "image", "text"]
    space = modalign.align(plan)
    assert space.modalities == ("image", "text", "audio")
    assert "image" in report(Path("runs/tiny"))["stages"][1]["unchanged"]
    plan["stages"][1]["align"] = ["image", "audio"]
    assert modalign.align(plan, out="anchored-by-image").modalities == ("image", "text", "audio")


def test_unfreeze_trains_what_it_names(plan: Plan, in_tmp: Path) -> None:
    plan["stages"][1]["unfreeze"] = ["projection", "encoder:text"]
    modalign.align(plan)
    stage = report(Path("runs/tiny"))["stages"][1]
    assert stage["trained"] == ["audio", "encoder:audio", "encoder:text", "projection"]
    assert set(stage["unchanged"]) == {"temperature", "image", "text", "encoder:image"}
    saved = json.loads(Path("runs/tiny/space/config.json").read_text())
    assert saved["modalities"]["text"]["carried"]  # so its weights travel with the space
    assert modalign.load("runs/tiny/space").embed("text", ["one"]).shape == (1, 16)


def test_every_stage_may_have_its_own_data_and_mixtures(plan: Plan, in_tmp: Path, digits: Path) -> None:
    table = pq.read_table(digits)
    half = len(table) // 2
    pq.write_table(table.slice(0, half).drop(["audio"]), "pictures.parquet")
    pq.write_table(table.slice(half).drop(["image"]).rename_columns({"text": "word"}), "sounds.parquet")
    plan["stages"][0]["data"] = {"table": "pictures.parquet", "split": "split"}
    plan["stages"][1]["data"] = {
        "split": "split",
        "mix": [
            {"table": "sounds.parquet", "columns": {"audio": "audio", "text": "word"}, "weight": 3},
            {"table": str(digits), "weight": 1},
        ],
    }
    modalign.align(plan)
    stages = report(Path("runs/tiny"))["stages"]
    assert stages[0]["rows"] < stages[1]["rows"]


def test_missing_cells_and_rows_without_a_pair(plan: Plan, in_tmp: Path, digits: Path) -> None:
    rows = pq.read_table(digits).to_pylist()
    for i, row in enumerate(rows):
        if i % 3 == 0:
            row["image"] = None
        if i % 3 == 1:
            row["text"] = []
        if i % 7 == 0:
            row["audio"] = {"bytes": None, "path": None}
    pq.write_table(pa.Table.from_pylist(rows), "holes.parquet")
    plan["data"]["table"] = "holes.parquet"
    plan["stages"][1]["align"] = ["audio", "image", "text"]
    modalign.align(plan)
    train = [r for r in rows if r["split"] == "train"]
    filled = [(r["image"] is not None) + bool(r["text"]) for r in train]
    stages = report(Path("runs/tiny"))["stages"]
    assert stages[0]["rows"] == sum(n == 2 for n in filled)
    assert stages[1]["rows"] == sum(
        n + (r["audio"]["bytes"] is not None) >= 2 for n, r in zip(filled, train, strict=True)
    )
    assert stages[1]["nonfinite_steps"] == 0


@pytest.mark.parametrize(
    "change", [{"accumulate": 3}, {"schedule": "constant", "clip": None}, {"batch_size": 7}]
)
def test_the_training_options(plan: Plan, in_tmp: Path, change: dict[str, Any]) -> None:
    plan["stages"] = [{**plan["stages"][0], **change}]
    del plan["modalities"]["audio"], plan["tasks"][1]
    modalign.align(plan)
    stage = report(Path("runs/tiny"))["stages"][0]
    batches = -(-stage["rows"] // plan["stages"][0]["batch_size"])
    assert stage["steps"] == 2 * -(-batches // change.get("accumulate", 1))


def test_accumulated_steps_use_the_mean_of_their_batches(plan: Plan, in_tmp: Path) -> None:
    """One step over k batches of the same loss moves by the mean gradient, whatever k is."""
    lines = []
    for k in (1, 2):
        plan["stages"] = [{**plan["stages"][0], "epochs": 1, "accumulate": k, "lr": 1e-12, "warmup": 0.0}]
        modalign.align(
            {**plan, "modalities": {m: plan["modalities"][m] for m in ("image", "text")}, "tasks": []},
            out=f"k{k}",
        )
        lines.append(
            [
                json.loads(line)["metrics"]["loss"]
                for line in Path(f"k{k}/metrics.jsonl").read_text().splitlines()
                if '"lr"' in line
            ]
        )
    assert lines[1][0] == pytest.approx((lines[0][0] + lines[0][1]) / 2, rel=1e-4)


def test_select_keeps_the_best_epoch_and_stops_early(plan: Plan, in_tmp: Path) -> None:
    plan["stages"] = [
        {
            **plan["stages"][0],
            "epochs": 12,
            "lr": 0.5,
            "select": {"task": "retrieval:image->text", "patience": 2},
        }
    ]
    del plan["modalities"]["audio"], plan["tasks"][1]
    modalign.align(plan)
    records = [
        json.loads(line)["metrics"] for line in Path("runs/tiny/metrics.jsonl").read_text().splitlines()
    ]
    measured = [m["select/retrieval:image->text"] for m in records if "select/retrieval:image->text" in m]
    stage = report(Path("runs/tiny"))["stages"][0]
    assert len(measured) == stage["epochs"] < 12
    assert measured.index(max(measured)) == len(measured) - 3
    check = {**plan, "tasks": [{"name": "retrieval", "from": "image", "to": "text", "split": "val"}]}
    from modalign.training.eval import evaluate

    found = evaluate("runs/tiny/space", check)["retrieval:image->text"]["R@1"]
    assert found == pytest.approx(max(measured))


@pytest.mark.parametrize("projection", ["linear", {"name": "mlp", "width": 16}])
@pytest.mark.parametrize("temperature", [0.2, {"init": 0.1, "learned": True}])
def test_other_projections_and_temperatures(
    plan: Plan, in_tmp: Path, projection: Any, temperature: Any
) -> None:
    plan["space"] = {"dim": 16, "projection": projection, "temperature": temperature}
    space = modalign.align(plan)
    assert (float(space.scale) == pytest.approx(5.0)) == (temperature == 0.2)


def test_augmentation_anew_and_in_cached_views(plan: Plan, in_tmp: Path) -> None:
    plan["modalities"]["image"] |= {"augment": True}
    plan["modalities"]["audio"] |= {"augment": {"views": 2}, "trainable": False}
    modalign.align(plan, out="a")
    modalign.align(plan, out="b")
    stages = report(Path("a"))["stages"]
    assert "image" not in stages[0]["cache"]
    assert stages[1]["cache"]["audio"]["encoded"] > stages[1]["rows"]  # two views of each
    assert Path("a/space/model.safetensors").read_bytes() == Path("b/space/model.safetensors").read_bytes()


def test_an_earlier_run_is_kept(plan: Plan, in_tmp: Path) -> None:
    plan["stages"], plan["tasks"] = plan["stages"][:1], []
    del plan["modalities"]["audio"]
    modalign.align(plan)
    first = Path("runs/tiny/space/model.safetensors").read_bytes()
    modalign.align({**plan, "seed": 3})
    assert Path("runs/tiny.1/space/model.safetensors").read_bytes() == first
    assert Path("runs/tiny/space/model.safetensors").read_bytes() != first


def test_the_run_folder_is_complete(plan: Plan, in_tmp: Path) -> None:
    modalign.align(plan)
    folder = Path("runs/tiny")
    for name in (
        "plan.yaml",
        "report.json",
        "report.html",
        "metrics.jsonl",
        "space/config.json",
        "space/README.md",
    ):
        assert (folder / name).stat().st_size > 0, name
    content = report(folder)
    assert {"plan", "versions", "stages", "tasks"} <= content.keys()
    assert {"name", "seconds", "trained_parameters", "loss", "unchanged"} <= content["stages"][0].keys()
    assert {"modalign", "torch", "modalign-image"} <= content["versions"].keys()
    page = (folder / "report.html").read_text()
    assert "retrieval:audio-&gt;image" in page
    assert "http" not in page.lower().replace("http-equiv", "")


def test_mixed_precision_keeps_weights_in_float32(plan: Plan, in_tmp: Path) -> None:
    plan["fabric"]["precision"] = "bf16-mixed"
    modalign.align(plan, out="mixed")
    plan["fabric"]["precision"] = "32-true"
    modalign.align(plan, out="single")
    stages = [report(Path(run))["stages"] for run in ("mixed", "single")]
    assert [s["loss"] for s in stages[0]] == pytest.approx([s["loss"] for s in stages[1]], rel=0.05)
    assert [s["loss"] for s in stages[0]] != [s["loss"] for s in stages[1]]
    weights = load_file("mixed/space/model.safetensors").values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float32}
    assert stages[0][1]["unchanged"] == stages[1][1]["unchanged"]


def test_a_task_may_take_its_classes_from_another_column(plan: Plan, in_tmp: Path) -> None:
    table = pq.read_table(plan["data"]["table"])
    parity = ["even" if int(v) % 2 == 0 else "odd" for v in table["label"].to_pylist()]
    pq.write_table(table.append_column("parity", pa.array(parity)), "parity.parquet")
    plan["data"]["table"] = "parity.parquet"
    del plan["modalities"]["audio"], plan["stages"][1]
    plan["stages"][0]["select"] = {"task": "linear_probe:image:parity", "split": "test"}
    probe = {"name": "linear_probe", "modality": "image"}
    retrieval = {"name": "retrieval", "from": "image", "to": "text"}
    plan["tasks"] = [
        probe,
        {**probe, "label": "parity"},
        {"name": "group", "task": retrieval, "by": "parity"},
    ]
    modalign.align(plan, out="run")
    report = json.loads(Path("run/report.json").read_text())
    assert report["chance"]["linear_probe:image"]["accuracy"] < 0.3
    assert report["chance"]["linear_probe:image:parity"]["accuracy"] >= 0.5
    assert "worst" in report["tasks"]["group:retrieval:image->text:parity"]


def test_a_column_that_is_not_there_is_named(plan: Plan, in_tmp: Path) -> None:
    plan["tasks"].append({"name": "linear_probe", "modality": "image", "label": "labl"})
    with pytest.raises(UserError, match=r"no column 'labl'; did you mean 'label'"):
        modalign.align(plan, out="run")
    assert not Path("run").exists()


def test_a_task_may_have_its_own_data(plan: Plan, in_tmp: Path) -> None:
    few = pq.read_table(plan["data"]["table"]).filter(pc.field("split") == "test").slice(0, 5)
    pq.write_table(few, "few.parquet")
    retrieval = {"name": "retrieval", "from": "image", "to": "audio"}
    data = {"table": "few.parquet", "split": "split"}
    plan["tasks"] = [retrieval, {**retrieval, "id": "few", "data": data}]
    Path("plan.yaml").write_text(json.dumps(plan))
    space = modalign.align("plan.yaml", out="run")
    found = json.loads(Path("run/report.json").read_text())["chance"]
    assert found["few"]["R@1"] >= 1 / 5
    assert found["retrieval:image->audio"]["R@1"] < 1 / 10
    assert evaluate(space, "run/plan.yaml")["few"]["chance_R@1"] == pytest.approx(found["few"]["R@1"])

    plan["tasks"][1]["data"]["table"] = "fwe.parquet"
    with pytest.raises(UserError, match=r"tasks.1.data.*no file fwe.parquet.*few.parquet"):
        modalign.align(plan, out="other")


def test_a_founder_can_be_trained_again_alone(plan: Plan, in_tmp: Path) -> None:
    plan["stages"][1]["unfreeze"] = ["text"]
    modalign.align(plan, out="run")
    stage = json.loads(Path("run/report.json").read_text())["stages"][1]
    assert {"projection", "image", "encoder:image"} <= set(stage["unchanged"])
    assert "text" in stage["trained"]
