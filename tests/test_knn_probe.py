"""Nearest-neighbour probe: scikit-learn's classifier, ties, several classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.tasks import KnnProbe, knn_probe
from modalign.tasks.labelled import labelled
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from .splits import digits, items, rows_of

torch.set_num_threads(1)
quick = settings(max_examples=12, deadline=None)


@quick
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 60]))
def test_equals_scikit_learn(seed, k):
    data = digits(seed, spread=2.0)
    train = data.others["train"]
    oracle = KNeighborsClassifier(k).fit(train.items["picture"].vectors.numpy(), train.labels.numpy())
    predicted = oracle.predict(data.items["picture"].vectors.numpy())
    got = KnnProbe("picture", k=k).run(None, data)
    assert got.metrics["accuracy"] == pytest.approx(accuracy_score(data.labels, predicted))


@quick
@given(st.integers(0, 10_000))
def test_one_search_serves_every_k_and_blocks_change_nothing(seed):
    data = digits(seed, spread=2.0)
    known = labelled(None, data.others["train"], ("picture",))
    vectors = data.items["picture"].vectors
    together = knn_probe.predict(known, vectors, [1, 4, 10_000])
    before, knn_probe.BLOCK = knn_probe.BLOCK, 7
    try:
        alone = [knn_probe.predict(known, vectors, [k])[0] for k in (1, 4, 10_000)]
    finally:
        knn_probe.BLOCK = before
    for a, b in zip(together, alone, strict=True):
        assert a.tolist() == b.tolist()


def test_of_equal_votes_the_first_class_wins():
    train = rows_of("train", [2, 0], picture=np.eye(2))
    data = rows_of("test", [0, 2], picture=np.eye(2)[[1, 0]])
    data.others = {"train": train}
    assert KnnProbe("picture", k=1).run(None, data).metrics["accuracy"] == 1
    assert KnnProbe("picture", k=2).run(None, data).metrics["accuracy"] == 0.5


def test_a_duplicate_is_one_neighbour_and_votes_for_each_of_its_classes():
    """The item of rows 0, 1 and 2 has classes 0, 0 and 1: one vote for each of the two."""
    train = rows_of("train", [0, 0, 1, 1], picture=np.eye(2))
    train.items["picture"] = items(np.eye(2), [[0, 0], [0, 1], [0, 2], [1, 3]])
    data = rows_of("test", [1], picture=np.eye(2)[:1])
    data.others = {"train": train}
    assert KnnProbe("picture", k=3).run(None, data).metrics["accuracy"] == 1  # 0: one vote, 1: two
    assert KnnProbe("picture", k=3).run(None, data).tables["sizes"][0]["learnt_from"] == 2
