"""Labelled items: which there are, of which classes, and shares by class, against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks.bootstrap import interval
from modalign.tasks.labelled import asked, balanced, labelled, learnt
from sklearn.metrics import balanced_accuracy_score

from .splits import Table, cloud, digits, items, rows_of

torch.set_num_threads(1)
quick = settings(max_examples=15, deadline=None)


def random_table(seed):
    """Items in several rows, rows with several items, unknown labels."""
    rng = np.random.default_rng(seed)
    links = [[i, int(rng.integers(0, 9))] for i in range(7) for _ in range(int(rng.integers(1, 4)))]
    vectors = rng.normal(size=(7, 3))
    return Table({"a": items(vectors, links)}, 9, torch.tensor(rng.integers(-1, 3, 9)))


def known(table, i):
    return {int(table.labels[r]) for item, r in table.items["a"].links.tolist() if item == i} - {-1}


@quick
@given(st.integers(0, 10_000))
def test_every_item_with_a_label_is_there_once_with_all_its_classes(seed):
    table = random_table(seed)
    want = {i: known(table, i) for i in range(7) if known(table, i)}
    if not want:
        with pytest.raises(UserError, match="label"):
            labelled(None, table, ("a",))
        return
    got = labelled(None, table, ("a",))
    classes = [{c for item, c in got.pairs.tolist() if item == place} for place in range(len(got))]
    assert classes == list(want.values())
    assert got.left_out == 7 - len(want)
    vectors = table.items["a"].vectors[list(want)]
    torch.testing.assert_close(got.vectors, vectors / vectors.norm(dim=1, keepdim=True))
    some = got.among(torch.tensor([0, 2]))
    assert [{c for i, c in some.pairs.tolist() if i == p} for p in range(len(some))] == [
        c & {0, 2} for c in classes if c & {0, 2}
    ]
    assert len(some) + some.left_out == 7
    predicted = torch.tensor(np.random.default_rng(seed).integers(0, 3, len(got)))
    assert got.right(predicted).tolist() == [int(p) in c for p, c in zip(predicted, classes, strict=True)]
    assert got.chance(3) == pytest.approx(np.mean([len(c) / 3 for c in classes]))


@quick
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_balanced_accuracy_equals_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, 30) * 2  # classes 1, 3, … are empty
    found = labelled(None, rows_of("test", truth, a=rng.normal(size=(30, 4))), ("a",))
    predicted = torch.tensor(rng.choice(np.unique(truth), 30))
    value, (low, high) = balanced(found, found.right(predicted))
    assert value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert 0 <= low <= high <= 1


def test_an_item_of_two_classes_is_drawn_as_one():
    """If all items have both classes, every resample's balanced accuracy is its accuracy."""
    links = [[i, r] for i in range(40) for r in (0, 1)]
    found = labelled(None, Table({"a": items(np.eye(40), links)}, 2, torch.tensor([0, 1])), ("a",))
    right = torch.arange(40) % 3 == 0
    value, between = balanced(found, right)
    assert value == pytest.approx(14 / 40)
    assert between == pytest.approx(interval(right.double()))


def test_what_cannot_be_learnt_or_asked_is_said():
    data = digits()
    with pytest.raises(UserError, match="add `label`"):
        labelled(None, Table(data.items, data.rows), ("picture",))
    with pytest.raises(UserError, match="'test'"):
        learnt(None, data, "test", ("picture",))
    with pytest.raises(UserError, match="tain"):
        learnt(None, data, "tain", ("picture",))
    with pytest.raises(UserError, match="learnt"):
        asked(None, data, torch.tensor([7]), ("picture",))
    data.others["train"].labels = torch.zeros(60, dtype=torch.long)
    with pytest.raises(UserError, match="one class"):
        learnt(None, data, "train", ("picture",))


def test_a_modality_without_items_or_with_broken_ones_is_named():
    data = digits()
    data.items["sound"] = Items(torch.zeros(0, 8), torch.zeros(0, 2, dtype=torch.long))
    with pytest.raises(UserError, match="sound"):
        labelled(None, data, ("sound",))
    data.items["picture"].vectors[3] = torch.nan
    with pytest.raises(UserError, match="finite"):
        labelled(None, data, ("picture",))


def test_rows_of_several_modalities_are_combined():
    rng = np.random.default_rng(0)
    labels = np.arange(6) % 2
    data = rows_of("test", labels, a=cloud(rng, labels), b=cloud(rng, labels))
    product = data.items["a"].vectors * data.items["b"].vectors
    got = labelled(None, data, ("a", "b"))
    torch.testing.assert_close(got.vectors, product / product.norm(dim=1, keepdim=True))
