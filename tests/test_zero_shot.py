"""Zero-shot: scikit-learn and brute force, several labels, missing labels, templates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import ZeroShot, ranking
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)
quick = settings(max_examples=60, deadline=None)


def unit(rng, n, d=6):
    return normalize(torch.tensor(rng.normal(size=(n, d)), dtype=torch.float32), dim=1)


def labelled(seed, classes=8, rows=60):
    """One audio per row; two sentences per class, each in all of its rows."""
    rng = np.random.default_rng(seed)
    labels = torch.tensor(np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)]))
    audio = Items(unit(rng, rows), torch.arange(rows).unsqueeze(1).expand(-1, 2))
    text_links = [[2 * int(c) + s, r] for r, c in enumerate(labels) for s in range(2)]
    text = Items(unit(rng, 2 * classes), torch.tensor(text_links))
    names = tuple(f"class {c}" for c in range(classes))
    return Table({"audio": audio, "text": text}, rows, labels, names)


@quick
@given(st.integers(0, 10_000), st.sampled_from([2, 5, 6, 9]))
def test_equals_scikit_learn(seed, classes):
    data = labelled(seed, classes)
    text = data.items["text"].vectors.double().numpy().reshape(classes, 2, -1).mean(1)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    scores = data.items["audio"].vectors.double().numpy() @ text.T
    truth = data.labels.numpy()
    got = ZeroShot("audio", "text").run(None, data)
    want = {
        "accuracy": accuracy_score(truth, scores.argmax(1)),
        "balanced_accuracy": balanced_accuracy_score(truth, scores.argmax(1)),
        "chance": 1 / classes,
    }
    if classes > 5:
        want["top5"] = top_k_accuracy_score(truth, scores, k=5)
    assert got.metrics == pytest.approx(want)
    rows = got.tables["classes"]
    assert [r["class"] for r in rows] == list(data.classes)
    assert [r["items"] for r in rows] == np.bincount(truth, minlength=classes).tolist()
    for c, row in enumerate(rows):
        assert row["accuracy"] == pytest.approx((scores.argmax(1) == c)[truth == c].mean())


def test_a_prototype_counts_each_distinct_description_once():
    """A sentence in nine rows weighs as much as one in a single row."""
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    text = Items(torch.stack([a, b, -a]), torch.tensor([*[[0, r] for r in range(9)], [1, 9], [2, 10]]))
    audio = Items(torch.eye(2)[:1], torch.tensor([[0, 0]]))
    data = Table({"audio": audio, "text": text}, 11, torch.tensor([0] * 10 + [1]), ("x", "y"))
    prototypes, _, names = ZeroShot("audio", "text").prototypes(None, data, audio)
    torch.testing.assert_close(prototypes, torch.stack([normalize(a + b, dim=0), -a]))
    assert names == ["x", "y"]


@quick
@given(st.integers(0, 10_000))
def test_several_and_unknown_labels(seed):
    """Brute force: an item is right if its nearest prototype is any of its classes."""
    rng = np.random.default_rng(seed)
    rows, n, k = 14, 8, 5
    labels = rng.integers(-1, 4, rows)
    audio_links = [[i, int(rng.integers(0, rows))] for i in range(n) for _ in range(2)]
    text_links = [[i, int(rng.integers(0, rows))] for i in range(k) for _ in range(2)]
    audio, text = (Items(unit(rng, s), torch.tensor(x)) for s, x in ((n, audio_links), (k, text_links)))
    data = Table({"audio": audio, "text": text}, rows, torch.tensor(labels))

    def known(links, i):
        return {int(labels[r]) for item, r in links if item == i} - {-1}

    described = sorted({c for i in range(k) for c in known(text_links, i)})
    asked = {i: known(audio_links, i) & set(described) for i in range(n)}
    asked = {i: right for i, right in asked.items() if right}
    task = ZeroShot("audio", "text")
    if not asked:
        with pytest.raises(UserError, match="audio"):
            task.run(None, data)
        return
    centres = [
        np.mean([text.vectors[i].double().numpy() for i in range(k) if c in known(text_links, i)], axis=0)
        for c in described
    ]
    centres = np.stack([c / np.linalg.norm(c) for c in centres])
    right = {}
    for i, answers in asked.items():
        scores = centres @ audio.vectors[i].double().numpy()
        near = [described[j] for j in range(len(scores)) if scores[j] >= scores.max() - 1e-6]
        right[i] = set(near) <= answers  # two classes may share their only description
    got = task.run(None, data)
    assert got.metrics["accuracy"] == pytest.approx(np.mean(list(right.values())))
    per_class = [[right[i] for i in asked if c in asked[i]] for c in described]
    assert got.metrics["balanced_accuracy"] == pytest.approx(np.mean([np.mean(r) for r in per_class if r]))
    assert got.metrics["chance"] == pytest.approx(np.mean([len(a) / len(described) for a in asked.values()]))
    assert got.tables["sizes"][0] == {
        "items": len(asked),
        "left_out": n - len(asked),
        "classes": len(described),
    }
    assert "top5" not in got.metrics


def test_without_labels_every_description_is_a_class():
    rng = np.random.default_rng(0)
    text = Items(unit(rng, 3), torch.tensor([[0, 0], [1, 1], [2, 2], [0, 3]]))
    audio = Items(text.vectors[[0, 1, 0, 0]], torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3]]))
    got = ZeroShot("audio", "text").run(None, Table({"audio": audio, "text": text}, 4))
    assert got.metrics == pytest.approx({"accuracy": 0.75, "balanced_accuracy": 2 / 3, "chance": 1 / 3})
    assert "classes" not in got.tables


def test_a_collapsed_space_does_not_score():
    data = labelled(0)
    for name, items in data.items.items():
        data.items[name] = Items(items.vectors[:1].repeat(len(items), 1), items.links)
    assert ZeroShot("audio", "text").run(None, data).metrics["accuracy"] == 0


def test_blocks_and_item_order_change_nothing(monkeypatch):
    data = labelled(3)
    want = ZeroShot("audio", "text").run(None, data).metrics
    audio = data.items["audio"]
    order = torch.randperm(len(audio), generator=torch.Generator().manual_seed(0))
    links = torch.stack([order.argsort()[audio.links[:, 0]], audio.links[:, 1]], 1)
    data.items["audio"] = Items(audio.vectors[order], links)
    monkeypatch.setattr(ranking, "BLOCK", 20)
    assert ZeroShot("audio", "text").run(None, data).metrics == pytest.approx(want)


class Space:
    """Embeds any text as its own direction, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def embed(self, modality, values):
        self.asked.append((modality, list(values)))
        return torch.cat([unit(np.random.default_rng(list(v.encode())), 1) for v in values])


def test_templates_are_an_ensemble_of_the_classes_names():
    data, space = labelled(1), Space()
    del data.items["text"]  # the split needs no description of its own
    got = ZeroShot("audio", "text", templates=["a {}", "the sound of {}"]).run(space, data)
    texts = [f"{t} class {c}" for c in range(8) for t in ("a", "the sound of")]
    assert space.asked == [("text", texts)]
    vectors = space.embed("text", texts).reshape(8, 2, -1)
    centres = normalize(vectors.sum(1), dim=1)
    hits = (data.items["audio"].vectors @ centres.T).argmax(1) == data.labels
    assert got.metrics["accuracy"] == pytest.approx(hits.float().mean().item())


def test_templates_without_labels_are_refused():
    data = labelled(1)
    data.labels = None
    with pytest.raises(UserError, match="label"):
        ZeroShot("audio", "text", ["a {}"]).run(Space(), data)


@pytest.mark.parametrize("empty", ["audio", "text"])
def test_a_modality_without_items_is_named(empty):
    data = labelled(0)
    data.items[empty] = Items(torch.zeros(0, 6), torch.zeros(0, 2, dtype=torch.long))
    with pytest.raises(UserError, match=f"'test'.*{empty}"):
        ZeroShot("audio", "text").run(None, data)


@pytest.mark.parametrize("templates", [["a photo"], [], "no place"])
def test_a_template_needs_a_place_for_the_name(templates):
    with pytest.raises(UserError, match="templates"):
        ZeroShot("audio", "text", templates)


def test_its_id_is_what_it_classifies():
    task = ZeroShot("audio", "text")
    assert (task.about, task.modalities, task.primary) == ("audio", ("audio", "text"), "accuracy")
