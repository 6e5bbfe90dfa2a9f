"""A space as a sentence-transformers model: the same vectors, its evaluators, its trainer's gradients."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import modalign
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from modalign import Space
from modalign.hub import as_sentence_transformer
from modalign.hub.values import as_cell
from modalign.tasks.retrieval import retrieval_metrics

pytest.importorskip("sentence_transformers", minversion="5.4")

Plan = dict[str, Any]


@pytest.fixture
def space(plan: Plan, in_tmp: Path) -> Space:
    return modalign.align(plan)


def cells(digits: Path, modality: str, n: int = 12) -> list[Any]:
    found = pq.read_table(digits).slice(0, n)[modality].to_pylist()
    return [c["bytes"] if isinstance(c, dict) else c[0] for c in found]


def test_encode_equals_embed_for_every_kind_of_input(space: Space, digits: Path, in_tmp: Path) -> None:
    from PIL import Image

    model = as_sentence_transformer(space)
    assert model.get_embedding_dimension() == space.dim
    assert set(model.modalities) == {"image", "text", "audio"}
    pictures, sounds, words = (cells(digits, m) for m in ("image", "audio", "text"))
    for i, picture in enumerate(pictures):
        Path(f"{i}.png").write_bytes(picture)
    import soundfile

    arrays = [soundfile.read(io.BytesIO(s), dtype="float32") for s in sounds]
    given = {
        "text": [words, [{"text": w} for w in words]],
        "image": [
            [Image.open(io.BytesIO(p)) for p in pictures],
            [f"{i}.png" for i in range(len(pictures))],
            [{"image": p} for p in pictures],
        ],
        "audio": [
            [{"array": a, "sampling_rate": rate} for a, rate in arrays],
            [{"audio": s} for s in sounds],
        ],
    }
    for modality, forms in given.items():
        wanted = space.embed(modality, cells(digits, modality)).numpy()
        for form in forms:
            np.testing.assert_allclose(model.encode(form, batch_size=5), wanted, atol=1e-6)


def test_samples_keep_their_float32(in_tmp: Path) -> None:
    import soundfile

    wave = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32) / 7  # (channels, L)
    samples, rate = soundfile.read(
        io.BytesIO(as_cell({"array": wave, "sampling_rate": 8000})), dtype="float32"
    )
    assert rate == 8000
    np.testing.assert_array_equal(samples, wave.T)


def test_saved_and_loaded(space: Space, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = as_sentence_transformer(space, {"text": "text"})
    model.save(str(tmp_path / "model"))
    again = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(["one", "two"]), model.encode(["one", "two"]))
    assert again.modalities == ["text"]
    with pytest.raises((modalign.UserError, ValueError), match="image"):
        again.encode([{"image": b"x"}])
    loaded = modalign.load(tmp_path / "model" / "0_SpaceModule")
    assert torch.equal(loaded.embed("text", ["one"]), space.embed("text", ["one"]))


def test_names_say_which_modality_a_string_is(space: Space) -> None:
    with pytest.raises(modalign.UserError, match="no modality 'fr'"):
        as_sentence_transformer(space, {"text": "fr"})
    model = as_sentence_transformer(space)
    with pytest.raises(modalign.UserError, match="modality: value"):
        model.encode([b"bytes"])
    with pytest.raises((modalign.UserError, ValueError), match="image"):  # one modality at a time
        model.encode([{"text": "one"}, {"image": b"x"}])
    prompted = model.encode(["one"], prompt="number ")
    np.testing.assert_allclose(prompted, space.embed("text", ["number one"]).numpy(), atol=1e-6)


def test_its_retrieval_evaluator_gives_our_numbers(space: Space, digits: Path) -> None:
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    pictures, sounds = cells(digits, "image", 40), cells(digits, "audio", 40)
    labels = pq.read_table(digits)["label"].to_pylist()[:40]
    positives = [[j for j in range(40) if labels[j] == label] for label in labels]
    evaluator = InformationRetrievalEvaluator(
        {str(i): {"audio": s} for i, s in enumerate(sounds)},
        {str(i): {"image": p} for i, p in enumerate(pictures)},
        {str(i): {str(j) for j in some} for i, some in enumerate(positives)},
        accuracy_at_k=[1, 5, 10], mrr_at_k=[40], write_csv=False,
    )  # fmt: skip
    found = evaluator(as_sentence_transformer(space))
    ours = retrieval_metrics(space.embed("audio", sounds), space.embed("image", pictures), positives)
    for k in (1, 5, 10):
        assert found[f"cosine_accuracy@{k}"] == pytest.approx(ours[f"R@{k}"])
    assert found["cosine_mrr@40"] == pytest.approx(ours["MRR"], abs=1e-6)


def test_gradients_reach_what_is_trainable(space: Space) -> None:
    model = as_sentence_transformer(space)
    space.requires_grad_(True)
    out = model(model.preprocess(["one", "two"]))["sentence_embedding"]
    (out[0] @ out[1]).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in space.layers["text"].parameters())
