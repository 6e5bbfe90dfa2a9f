"""Groups: worst, average and harm against brute force and by hand, edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import Group, Retrieval, ZeroShot
from modalign.testing import task as kit
from sklearn.metrics import recall_score

from .splits import Table, cloud, items, rows_of

torch.set_num_threads(1)
quick = settings(max_examples=5, deadline=None)
ZERO_SHOT = {"name": "zero_shot", "modality": "picture", "classes": "word"}
RETRIEVAL = {"name": "retrieval", "from": "picture", "to": "word"}


def pictures(seed, rows=40, classes=4, spread=1.5):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    return rows_of(
        "test", labels, picture=cloud(rng, labels, spread=spread), word=cloud(rng, labels, spread=0.3)
    )


@quick
@given(st.integers(0, 10_000))
def test_zero_shot_by_group_is_recall_by_class(seed):
    data = pictures(seed)
    truth = data.labels.numpy()
    words = data.items["word"].vectors.numpy()
    centres = np.stack([words[truth == c].sum(0) for c in range(4)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    predicted = (data.items["picture"].vectors.numpy() @ centres.T).argmax(1)
    recall = recall_score(truth, predicted, average=None)
    got = Group(ZERO_SHOT).run(None, data)
    average = (predicted == truth).mean()
    assert got.metrics == pytest.approx(
        {"worst": recall.min(), "average": average, "harm": average - recall.min()}
    )
    rows = {row["group"]: row for row in got.tables["groups"]}
    for c in range(4):
        row = rows[f"class {c}"]
        assert row["items"] == (truth == c).sum()
        assert row["value"] == pytest.approx(recall[c])
        assert row["harm"] == pytest.approx(average - recall[c])
        assert row["chance"] == pytest.approx(0.25)
    assert [r["value"] for r in got.tables["groups"]] == sorted(recall)
    assert got.metrics["average"] == pytest.approx(
        ZeroShot("picture", "word").run(None, data).metrics["accuracy"]
    )


@quick
@given(st.integers(0, 10_000))
def test_groups_of_another_column_are_the_accuracy_of_their_rows(seed):
    data = pictures(seed)
    speakers = torch.from_numpy(np.random.default_rng(seed).integers(-1, 3, data.rows))
    data.columns["speaker"] = speakers, ("ada", "bob", "eve")
    truth = data.labels.numpy()
    words = data.items["word"].vectors.numpy()
    centres = np.stack([words[truth == c].sum(0) for c in range(4)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    right = (data.items["picture"].vectors.numpy() @ centres.T).argmax(1) == truth
    report = Group(ZERO_SHOT, by="speaker").run(None, data)
    shares = {row["group"]: row["value"] for row in report.tables["groups"]}
    names = {name: i for i, name in enumerate(("ada", "bob", "eve"))}
    assert shares == pytest.approx({g: right[speakers == names[g]].mean() for g in shares})
    assert set(shares) == {n for n, i in names.items() if (speakers == i).any()}
    assert report.metrics["worst"] == pytest.approx(min(shares.values()))


@quick
@given(st.integers(0, 10_000), st.sampled_from([1, 5]))
def test_retrieval_by_group_equals_brute_force(seed, k):
    data = pictures(seed, spread=0.5)
    scores = data.items["picture"].vectors.double() @ data.items["word"].vectors.double().T
    hits = ((scores > scores.diagonal().unsqueeze(1)).sum(1) < k).double()
    got = Group(RETRIEVAL, k=k).run(None, data)
    values = [hits[data.labels == c].mean().item() for c in range(4)]
    assert got.metrics["worst"] == pytest.approx(min(values))
    assert got.metrics["average"] == pytest.approx(hits.mean().item())
    whole = Retrieval("picture", "word", ks=[k]).run(None, data)
    assert got.metrics["average"] == pytest.approx(whole.metrics[f"R@{k}"])
    assert got.chance["average"] == pytest.approx(k / 40)
    for name in ("worst", "average", "harm"):
        low, high = got.intervals[name]
        assert low <= high


def by_hand():
    """Class 0: three right of four; class 1: one of one; class 2: none of one."""
    eye = np.eye(3)
    picture = eye[[0, 0, 0, 1, 1, 0]]
    data = rows_of("test", [0, 0, 0, 0, 1, 2], picture=picture, word=eye[[0, 0, 0, 0, 1, 2]])
    data.items["word"] = items(eye, [[0, 0], [0, 1], [0, 2], [0, 3], [1, 4], [2, 5]])
    return data


def test_by_hand():
    got = Group(ZERO_SHOT).run(None, by_hand())
    assert got.metrics == pytest.approx({"worst": 0, "average": 4 / 6, "harm": 4 / 6})
    harms = {r["group"]: r["harm"] for r in got.tables["groups"]}
    assert harms == pytest.approx({"class 2": 4 / 6, "class 0": 4 / 6 - 3 / 4, "class 1": 4 / 6 - 1})


def test_small_groups_are_shown_and_decide_nothing():
    got = Group(ZERO_SHOT, at_least=2).run(None, by_hand())
    assert got.metrics == pytest.approx({"worst": 0.75, "average": 0.75, "harm": 0})
    assert [row["group"] for row in got.tables["groups"]] == ["class 2", "class 0", "class 1"]
    assert got.tables["sizes"] == [{"items": 4, "left_out": 2, "groups": 1}]
    with pytest.raises(UserError, match="at_least"):
        Group(ZERO_SHOT, at_least=5).run(None, by_hand())


def test_unknown_labels_and_queries_without_an_answer_are_in_no_group():
    data = by_hand()
    data.labels = torch.tensor([0, 0, 0, -1, 1, 2])
    data.items["word"] = Items(torch.eye(3)[:2], torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3], [1, 4]]))
    got = Group(RETRIEVAL).run(None, data)
    assert got.metrics == pytest.approx({"worst": 1, "average": 1, "harm": 0})
    assert got.tables["sizes"] == [{"items": 4, "left_out": 2, "groups": 2}]


def test_an_item_of_two_classes_counts_in_each():
    """Item 0 has classes 0 and 1 and is right, item 1 has class 1 and is wrong."""
    eye = np.eye(3)
    data = Table(
        {"picture": items(eye[:2], [[0, 0], [0, 1], [1, 2]])}, 3, torch.tensor([0, 1, 1]), ("x", "y")
    )
    data.items["word"] = items(eye[[0, 2]], [[0, 0], [1, 2]])
    got = Group(RETRIEVAL).run(None, data)
    assert {r["group"]: r["value"] for r in got.tables["groups"]} == {"x": 1, "y": 0.5}
    assert got.metrics == pytest.approx({"worst": 0.5, "average": 2 / 3, "harm": 1 / 6})


def test_ties_are_not_right():
    data = by_hand()
    for m in data.items:
        data.items[m] = Items(torch.ones_like(data.items[m].vectors), data.items[m].links)
    assert Group(ZERO_SHOT).run(None, data).metrics == {"worst": 0, "average": 0, "harm": 0}


def test_one_group_harms_nobody():
    data = rows_of("test", [0], picture=np.eye(1, 3), word=np.eye(1, 3))
    got = Group(RETRIEVAL).run(None, data)
    assert got.metrics == {"worst": 1, "average": 1, "harm": 0}
    assert got.intervals["harm"] == (0, 0)


def test_what_is_missing_is_said():
    data = by_hand()
    with pytest.raises(UserError, match="label"):
        Group(RETRIEVAL).run(None, Table(data.items, 6))
    data.items["word"] = Items(torch.zeros(0, 3), torch.zeros(0, 2, dtype=torch.long))
    with pytest.raises(UserError, match="word"):
        Group(ZERO_SHOT).run(None, data)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"task": "zero_shoot"}, "zero_shot"),
        ({"task": {"name": "zero_shot", "modality": "a"}}, "classes"),
        ({"task": {"name": "clustering", "modality": "a"}}, "retrieval"),
        ({"task": {"name": "retrieval", "form": "a", "to": "b"}}, "from"),
        ({"task": {"from": "a"}}, "name"),
        ({"task": RETRIEVAL, "k": 0}, "start at 1"),
        ({"task": RETRIEVAL, "at_least": 0}, "start at 1"),
    ],
)
def test_senseless_questions_are_refused(kwargs, word):
    with pytest.raises(UserError, match=word):
        Group(**kwargs)


@pytest.mark.parametrize("of", [ZERO_SHOT, RETRIEVAL])
def test_the_contract(of):
    for check in kit.CHECKS:
        check(lambda: Group(of))
    assert Group(of).modalities == ("picture", "word")
    assert Group(RETRIEVAL).about == "retrieval:picture->word"


def test_the_figure_shows_the_worst_groups(tmp_path):
    data = pictures(0, rows=60, classes=16)
    got = Group(ZERO_SHOT).run(None, data)
    (axes,) = got.figures["groups"].axes
    assert len(axes.patches) == 16
    got.figures["groups"].savefig(tmp_path / "groups.png")
