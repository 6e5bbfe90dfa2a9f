"""The space: saved and loaded whole, embeddings independent of the batch, damage named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import modalign
import pyarrow.parquet as pq
import pytest
import torch
from modalign.cli.main import main
from modalign.contracts import Features
from modalign.space import Space, SpaceModality
from modalign.spec import Spec

Plan = dict[str, Any]


@pytest.fixture
def saved(plan: Plan, in_tmp: Path) -> Path:
    modalign.align(plan)
    return in_tmp / "runs" / "tiny" / "space"


def values(digits: Path, modality: str, n: int = 9) -> list[Any]:
    cells = pq.read_table(digits).slice(0, n)[modality].to_pylist()
    return [c["bytes"] if isinstance(c, dict) else c[0] for c in cells]


def test_save_and_load(saved: Path, plan: Plan, digits: Path, tmp_path: Path) -> None:
    space = modalign.load(saved)
    assert space.modalities == ("image", "text", "audio")
    assert not any(p.requires_grad for p in space.parameters())
    space.save(tmp_path / "copy")
    again = modalign.load(tmp_path / "copy")
    for modality in space.modalities:
        a, b = (s.embed(modality, values(digits, modality)) for s in (space, again))
        assert torch.equal(a, b)
        assert a.dtype == torch.float32
        assert torch.allclose(a.norm(dim=1), torch.ones(len(a)), atol=1e-5)
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        saved / "model.safetensors"
    ).read_bytes()
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_embedding_alone_and_in_any_batch(saved: Path, digits: Path) -> None:
    space = modalign.load(saved)
    for modality in space.modalities:
        items = values(digits, modality)
        together = space.embed(modality, items)
        alone = torch.cat([space.embed(modality, [v]) for v in items])
        reversed_ = space.embed(modality, items[::-1], batch_size=4).flip(0)
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.allclose(together, reversed_, atol=1e-5)
    assert space.similarity(together, together).shape == (9, 9)
    assert space.embed("text", []).shape == (0, 16)


@pytest.mark.parametrize("projection", ["universal", "linear", "mlp"])
@pytest.mark.parametrize("fusion", ["add", "multiply", "concatenate", "attention"])
def test_padding_changes_nothing(projection: str, fusion: str) -> None:
    if projection != "universal" and fusion != "add":
        pytest.skip("only universal fuses a token")
    torch.manual_seed(0)
    args = {"width": 32, "heads": 4, "hidden": 64, "fusion": fusion} if projection == "universal" else {}
    space = Space(24, Spec(projection, args))
    space.add("x", SpaceModality(Spec("a"), Spec("b"), width=8), None, founder=True)
    space.eval()
    tokens, mask = (
        torch.randn(3, 5, 8),
        torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool(),
    )
    whole = space.project("x", Features(tokens, mask))
    for i, n in enumerate(mask.sum(1)):
        for padding in (0, 1, 7):
            filler = torch.full((1, padding, 8), 1e3)
            one = Features(
                torch.cat([tokens[i : i + 1, :n], filler], 1),
                torch.cat([torch.ones(1, int(n)), torch.zeros(1, padding)], 1).bool(),
            )
            out = space.project("x", one)
            assert torch.allclose(out.vectors, whole.vectors[i : i + 1], atol=1e-5)
            assert torch.allclose(out.tokens[:, :n], whole.tokens[i : i + 1, :n], atol=1e-5)


def test_parts_cover_every_tensor_once(saved: Path) -> None:
    space = modalign.load(saved)
    parts = dict(space.parts())
    assert set(parts) == {
        "projection",
        "temperature",
        *space.modalities,
        *(f"encoder:{m}" for m in space.modalities),
    }
    seen = [id(t) for tensors in parts.values() for _, t in tensors]
    # Founders share the token MLP: it is in both of their parts.
    assert set(seen) == {id(t) for t in space.state_dict(keep_vars=True).values()}


def test_wrong_requests_name_what_there_is(saved: Path) -> None:
    space = modalign.load(saved)
    with pytest.raises(modalign.UserError, match=r"no modality 'imag'.*'image'"):
        space.embed("imag", ["x"])
    with pytest.raises(modalign.UserError, match=r"cannot read .*gone\.png"):
        space.embed("image", ["gone.png"])


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda p: (p / "model.safetensors").write_bytes(b"short"), "damaged"),
        (lambda p: (p / "config.json").write_text("{"), "damaged"),
        (lambda p: (p / "model.safetensors").unlink(), "not a space"),
        (lambda p: shutil.rmtree(p), "not a space"),
        (lambda p: _edit(p, "format", 99), "format 99"),
        (lambda p: _edit(p, "dim", 8), "damaged"),
    ],
)
def test_a_damaged_space_says_so(
    saved: Path, damage: Any, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(saved)
    assert main(["embed", str(saved), "text", "one", "--out", "x.parquet"]) == 2
    assert word in capsys.readouterr().err
    assert not Path("x.parquet").exists()


def _edit(folder: Path, key: str, value: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, key: value}))


def test_other_weights_of_a_referenced_encoder_are_refused(saved: Path) -> None:
    content = json.loads((saved / "config.json").read_text())
    content["modalities"]["text"] |= {"carried": False, "fingerprint": "of another one"}
    (saved / "config.json").write_text(json.dumps(content))
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if not k.startswith("encoders.text.")}, saved / "model.safetensors"
    )
    with pytest.raises(modalign.UserError, match="not the one this space was made with"):
        modalign.load(saved).embed("text", ["one"])


def test_embed_command(saved: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(saved), "text", "one", "two", "--out", "out/a.parquet"]) == 0
    table = pq.read_table("out/a.parquet")
    assert table["value"].to_pylist() == ["one", "two"]
    expected = modalign.load(saved).embed("text", ["one", "two"])
    assert torch.allclose(torch.tensor(table["embedding"].to_pylist()), expected)
    assert main(["embed", str(saved), "text", "--table", str(digits), "--out", "b.parquet"]) == 0
    table = pq.read_table("b.parquet")
    assert table["row"].to_pylist() == [row for row in range(150) for _ in range(2)]  # two names each
    assert main(["embed", str(saved), "text", "--out", "c.parquet"]) == 2
    assert (
        main(["embed", str(saved), "text", "--table", str(digits), "--column", "txt", "--out", "c.parquet"])
        == 2
    )
    assert "'text'" in capsys.readouterr().err


def test_eval_command(saved: Path, plan: Plan, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.json").write_text(json.dumps(plan))
    assert main(["eval", str(saved), "plan.json", "--out", "measured"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = json.loads((saved.parent / "report.json").read_text())["tasks"]
    assert found == json.loads(Path("measured/report.json").read_text())["tasks"]
    for task, metrics in expected.items():
        assert found[task] == pytest.approx(metrics)
    assert main(["eval", str(saved), "plan.json", "tasks.0.to=smell"]) == 2
    assert "'smell'" in capsys.readouterr().err


def test_saving_never_deletes_anything_else(saved: Path, tmp_path: Path) -> None:
    space = modalign.load(saved)
    mine = tmp_path / "docs"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(modalign.UserError, match="something else"):
        space.save(mine)
    assert (mine / "thesis.txt").read_text() == "precious"
    space.save(saved)  # over a space: replaced
    os.replace(saved, saved.with_name(".space.old"))  # as a process killed between the two moves leaves it
    space.save(saved)
    assert modalign.load(saved).modalities == space.modalities


def test_a_carried_encoder_without_weights_is_damage(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if not k.startswith("encoders.")}, saved / "model.safetensors"
    )
    with pytest.raises(modalign.UserError, match="damaged"):
        modalign.load(saved)


def test_one_value_is_no_list(saved: Path) -> None:
    with pytest.raises(modalign.UserError, match="list of values"):
        modalign.load(saved).embed("text", "one")
