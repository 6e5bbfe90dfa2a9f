"""mteb runs on a space: a local retrieval task gives the numbers of ours."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import modalign
import pyarrow.parquet as pq
import pytest
import torch
from modalign import Space

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before mteb is imported: nothing is to be downloaded
mteb = pytest.importorskip("mteb", minversion="2")

from modalign.hub import SpaceEncoder  # noqa: E402

Plan = dict[str, Any]
GENERAL = {
    "description": "Digits", "reference": None, "dataset": {"path": "local", "revision": "1"}, "type": "Any2AnyRetrieval",
    "eval_splits": ["test"], "eval_langs": ["eng-Latn"], "main_score": "ndcg_at_10", "date": None, "domains": None,
    "task_subtypes": None, "license": None, "annotations_creators": None, "dialect": None, "sample_creation": None,
    "bibtex_citation": "",
}  # fmt: skip


@pytest.fixture
def space(plan: Plan, in_tmp: Path) -> Space:
    plan["tasks"] = [
        {"name": "retrieval", "from": "text", "to": "image", "split": "val"},
        {"name": "retrieval", "from": "image", "to": "text", "split": "val"},
    ]
    return modalign.align(plan)


def task(digits: Path, source: str, target: str) -> Any:
    """mteb's retrieval over the distinct items of the table's split ``val``, as our task takes them."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from PIL import Image

    rows = [r for r in pq.read_table(digits).to_pylist() if r["split"] == "val"]

    def items(modality: str) -> dict[Any, list[int]]:
        found: dict[Any, list[int]] = {}
        for i, row in enumerate(rows):
            cell = row[modality]
            for value in cell if isinstance(cell, list) else [cell["bytes"]]:
                found.setdefault(value, []).append(i)
        return found

    def dataset(modality: str) -> Any:
        held = [
            {"id": f"{modality}{i}", modality: Image.open(io.BytesIO(v)) if isinstance(v, bytes) else v}
            for i, v in enumerate(items(modality))
        ]
        return Dataset.from_list(held)

    asked, offered = list(items(source).values()), list(items(target).values())
    letters = {"text": "t", "image": "i"}

    class Digits(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="DigitsRetrieval", category=f"{letters[source]}2{letters[target]}",
            modalities=[source, target], **GENERAL,
        )  # fmt: skip

        def load_data(self, *args: Any, **kwargs: Any) -> None:
            self.dataset = {
                "default": {
                    "test": {
                        "queries": dataset(source),
                        "corpus": dataset(target),
                        "relevant_docs": {
                            f"{source}{i}": {
                                f"{target}{j}": 1 for j, b in enumerate(offered) if set(a) & set(b)
                            }
                            for i, a in enumerate(asked)
                        },
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return Digits()


@pytest.mark.parametrize(("source", "target"), [("text", "image"), ("image", "text")])
def test_mteb_gives_the_numbers_of_our_task(space: Space, digits: Path, source: str, target: str) -> None:
    encoder = SpaceEncoder(space)
    (result,) = mteb.evaluate(
        encoder, task(digits, source, target), cache=None, co2_tracker=False
    ).task_results
    (found,) = result.scores["test"]
    ours = space.about["results"][f"retrieval:{source}->{target}"]
    for k in (1, 5, 10):
        assert found[f"hit_rate_at_{k}"] == pytest.approx(ours[f"R@{k}"], abs=1e-5)
    assert found["mrr_at_1000"] == pytest.approx(ours["MRR"], abs=1e-5)  # mteb rounds to five digits
    for k in (5, 10):
        assert found[f"ndcg_at_{k}"] == pytest.approx(ours[f"nDCG@{k}"], abs=1e-5)
    assert result.task_name == "DigitsRetrieval"


def test_what_mteb_asks_of_an_encoder(space: Space, digits: Path) -> None:
    from mteb.models.models_protocols import EncoderProtocol

    encoder = SpaceEncoder(space, "me/tiny", "abc")
    assert isinstance(encoder, EncoderProtocol)
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("me/tiny", "abc", space.dim)
    assert set(meta.modalities) == {"image", "text", "audio"}
    words, pictures = ["one", "two"], [r["image"]["bytes"] for r in pq.read_table(digits).to_pylist()[:2]]
    a, b = space.embed("text", words), space.embed("image", pictures)
    both = encoder.encode([{"id": ["x", "y"], "text": words, "image": pictures}])
    assert torch.allclose(both, torch.nn.functional.normalize(a + b, dim=1), atol=1e-6)
    assert torch.allclose(encoder.encode([{"text": ["one"]}, {"text": ["two"]}]), a, atol=1e-6)
    assert torch.allclose(encoder.similarity(a, b), a @ b.T)
    assert torch.allclose(encoder.similarity_pairwise(a, b), (a @ b.T).diagonal(), atol=1e-6)
    with pytest.raises(modalign.UserError, match="names="):
        encoder.encode([{"video": ["x"]}])
    with pytest.raises(modalign.UserError, match="no modality 'fr'"):
        SpaceEncoder(space, names={"text": "fr"})
    french = SpaceEncoder(space, names={"video": "text"})
    assert torch.equal(french.encode([{"video": words}]), a)
