"""Linear probe: scikit-learn's logistic regression and grid search, and the splits it may see."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import KnnProbe, LinearProbe
from modalign.tasks.labelled import labelled
from modalign.tasks.probe import folds
from modalign.testing import task as kit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from .splits import cloud, digits, items, rows_of

torch.set_num_threads(1)
quick = settings(max_examples=8, deadline=None)
GRID = (0.01, 1.0, 100.0)


def arrays(split):
    return split.items["picture"].vectors.numpy(), split.labels.numpy()


def by_class(labels):
    return 1 / labels.bincount()[labels]


@quick
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 3.0]))
def test_one_value_equals_scikit_learn(seed, spread):
    data = digits(seed, spread=spread)
    (x, y), (asked, truth) = arrays(data.others["train"]), arrays(data)
    predicted = LogisticRegression(C=1.0, max_iter=1000).fit(x, y).predict(asked)
    got = LinearProbe("picture", C=1.0).run(None, data)
    assert got.metrics == pytest.approx(
        {
            "accuracy": accuracy_score(truth, predicted),
            "balanced_accuracy": balanced_accuracy_score(truth, predicted),
        }
    )
    assert got.chance == {"accuracy": 0.25, "balanced_accuracy": 0.25}
    for row, c in zip(got.tables["classes"], range(4), strict=True):
        right = (predicted == c)[truth == c]
        assert row == {"class": f"class {c}", "items": len(right), "accuracy": pytest.approx(right.mean())}
    for name, (low, high) in got.intervals.items():
        assert low <= got.metrics[name] <= high


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([LinearProbe, KnnProbe]))
def test_the_setting_is_the_best_on_val(seed, kind):
    data = digits(seed, val=30, spread=2.0)
    grid = (1, 3, 9) if kind is KnnProbe else GRID
    task = partial(kind, "picture")
    (choice,) = [row for row in task(grid).run(None, data).tables["choice"] if row["chosen"]]
    val = data.others["val"]
    alone = [task([v]).run(None, val).metrics["accuracy"] for v in grid]
    assert choice["accuracy"] == pytest.approx(max(alone))
    value = choice["k" if kind is KnnProbe else "C"]
    assert value == grid[int(np.argmax(alone))]
    assert task(grid).run(None, data).metrics == task([value]).run(None, data).metrics


def test_without_val_it_is_the_best_in_cross_validation_of_train():
    data = digits(3, spread=2.0)
    x, y = arrays(data.others["train"])
    fold = folds(labelled(None, data.others["train"], ("picture",)))
    oracle = GridSearchCV(
        LogisticRegression(max_iter=1000), {"C": GRID}, cv=PredefinedSplit(fold.numpy()), scoring="accuracy"
    ).fit(x, y)
    got = LinearProbe("picture", C=GRID).run(None, data).tables["choice"]
    assert [row["accuracy"] for row in got] == pytest.approx(oracle.cv_results_["mean_test_score"])
    assert [row["C"] for row in got if row["chosen"]] == [oracle.best_params_["C"]]


def test_the_measured_split_chooses_nothing():
    """On val itself, val's labels must not decide: shuffled, they leave the choice as it was."""
    data = digits(3, val=30, spread=2.0)
    val = data.others["val"]
    before = LinearProbe("picture", C=GRID).run(None, val).tables["choice"]
    val.labels = val.labels.flip(0)
    assert LinearProbe("picture", C=GRID).run(None, val).tables["choice"] == before
    with pytest.raises(UserError, match="'train'"):
        LinearProbe("picture").run(None, data.others["train"])


@quick
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_folds_spread_every_class_evenly(labels):
    fold = folds(labelled(None, rows_of("train", labels, a=np.ones((len(labels), 2))), ("a",)))
    sizes = fold.bincount(minlength=min(5, len(labels)))
    assert sizes.max() - sizes.min() <= 1
    for c in set(labels):
        part = fold[torch.tensor(labels) == c].bincount(minlength=len(sizes))
        assert part.max() - part.min() <= 1


@pytest.mark.parametrize("task", [LinearProbe("picture"), KnnProbe("picture")])
def test_random_labels_give_chance_and_true_ones_do_not(task):
    data = digits(0, train=300, test=300, spread=0.3)
    assert task.run(None, data).metrics["accuracy"] > 0.95
    rng = np.random.default_rng(0)
    for split in (data, data.others["train"]):
        split.labels = torch.tensor(rng.integers(0, 4, 300))
    assert task.run(None, data).metrics["accuracy"] == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("task", [LinearProbe("picture"), KnnProbe("picture")])
def test_a_collapsed_space_gives_chance(task):
    data = digits(0, test=400)
    for split in (data, data.others["train"]):
        vectors = split.items["picture"].vectors
        split.items["picture"] = Items(vectors[:1].repeat(len(vectors), 1), split.items["picture"].links)
    assert task.run(None, data).metrics["balanced_accuracy"] == pytest.approx(0.25)


@pytest.mark.parametrize("task", [LinearProbe("picture"), KnnProbe("picture")])
def test_two_items_are_enough_and_one_may_be_asked(task):
    train = rows_of("train", [0, 1], picture=np.eye(2))
    data = rows_of("test", [1], picture=np.eye(2)[1:])
    data.others = {"train": train}
    got = task.run(None, data)
    assert got.metrics == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    assert got.intervals["accuracy"] == (1.0, 1.0)


@pytest.mark.parametrize("task", [LinearProbe("picture", C=10), KnnProbe("picture", k=1)])
def test_unknown_labels_and_unlearnt_classes_are_left_out(task):
    """Class 2 was never learnt, rows of -1 have no class; in train they teach nothing."""
    eye = np.eye(3)
    train = rows_of("train", [0, 1, -1, -1], picture=eye[[0, 1, 0, 0]] + 0.01 * np.arange(12).reshape(4, 3))
    data = rows_of("test", [0, 1, 2, -1], picture=eye[[0, 0, 2, 1]])
    data.others = {"train": train}
    got = task.run(None, data)
    assert got.metrics["accuracy"] == 0.5
    assert got.tables["sizes"] == [{"items": 2, "left_out": 2, "classes": 2, "learnt_from": 2}]


@pytest.mark.parametrize("task", [LinearProbe("picture", C=10), KnnProbe("picture", k=1)])
def test_an_item_of_several_classes_is_right_if_any_is_predicted(task):
    train = rows_of("train", [0, 1], picture=np.eye(2))
    data = rows_of("test", [0, 1, 1], picture=np.eye(2)[:1])
    data.items["picture"] = items(np.eye(2), [[0, 0], [0, 1], [1, 2]])
    data.others = {"train": train}
    got = task.run(None, data)
    assert got.metrics == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    assert got.chance["accuracy"] == pytest.approx((2 / 2 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("kind", "wrong"), [(LinearProbe, []), (LinearProbe, 0), (KnnProbe, [0]), (KnnProbe, 1.5)]
)
def test_senseless_settings_are_refused(kind, wrong):
    with pytest.raises(UserError):
        kind("picture", wrong)


@pytest.mark.parametrize("kind", [LinearProbe, KnnProbe])
def test_the_contract(kind):
    kit.check_task_reports_its_primary(lambda: kind("a"))
    kit.check_task_is_deterministic(lambda: kind(["a", "b"]))
    assert (kind("a").about, kind(["a", "b"]).modalities) == ("a", ("a", "b"))


def test_labels_far_apart_and_floats_of_half_precision():
    rng = np.random.default_rng(0)
    labels = np.array([3, 900, 3, 900, 3, 900])
    train = rows_of("train", labels, picture=cloud(rng, labels // 900, spread=0.1))
    data = rows_of("test", labels, picture=cloud(rng, labels // 900, spread=0.1))
    data.others = {"train": train}
    data.items["picture"] = Items(data.items["picture"].vectors.bfloat16(), data.items["picture"].links)
    assert LinearProbe("picture").run(None, data).metrics["accuracy"] == 1
