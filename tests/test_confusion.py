"""Confusions: against scikit-learn, and with items of several classes or none."""

import numpy as np
import pytest
import torch
from modalign.tasks.confusion import confusion, figure, worst


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed):
    from sklearn.metrics import confusion_matrix

    g = torch.Generator().manual_seed(seed)
    vectors, prototypes = torch.randn(80, 6, generator=g), torch.randn(7, 6, generator=g)
    labels = torch.randint(6, (80,), generator=g)  # the last class has no item
    answers = torch.stack([torch.arange(80), labels], 1)
    found = confusion(vectors, prototypes, answers)
    oracle = confusion_matrix(labels, (vectors @ prototypes.T).argmax(1), labels=range(7))
    np.testing.assert_array_equal(found, oracle)


def test_an_item_of_two_classes_is_shared_and_one_of_none_is_left_out():
    vectors = prototypes = torch.eye(3)
    found = confusion(vectors, prototypes, torch.tensor([[0, 0], [0, 1], [1, 2]]))
    assert found.tolist() == [[0.5, 0, 0], [0.5, 0, 0], [0, 1, 0]]
    assert worst(found, "abc") == [
        {"class": "c", "taken for": "b", "items": 1.0},
        {"class": "b", "taken for": "a", "items": 0.5},
    ]


def test_the_figure_names_every_class():
    axes = figure(torch.tensor([[3.0, 1.0], [0.0, 0.0]]), ["cat", "dog"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in axes.texts] == ["3", "1"]
