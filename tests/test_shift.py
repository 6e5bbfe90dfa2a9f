"""Shift: both sides are the inner task, robustness against numpy's fit, intervals, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import Retrieval, ZeroShot
from modalign.tasks.shift import Shift, difference
from modalign.tasks.wrapped import Found
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)
ZERO_SHOT = {"name": "zero_shot", "modality": "first", "classes": "second"}


def diagonal(vectors):
    return Items(vectors, torch.arange(len(vectors)).unsqueeze(1).expand(-1, 2))


def classified(rows=60, noise=1.0, seed=0, name="test"):
    """Five classes of directions; ``first`` noisy, ``second`` the direction itself."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 5
    truth = torch.eye(8)[labels]
    first = normalize(truth + noise * torch.randn(rows, 8, generator=g), dim=1)
    second = normalize(truth + 0.05 * torch.randn(rows, 8, generator=g), dim=1)
    return Table({"first": diagonal(first), "second": diagonal(second)}, rows, labels, tuple("abcde"), name)


def test_both_sides_are_the_inner_task():
    easy, hard = classified(noise=0.3), classified(noise=1.0, seed=1, name="hard")
    easy.others["hard"] = hard
    task = Shift(ZERO_SHOT, to="hard")
    assert (task.about, task.modalities) == ("zero_shot:first=>hard", ("first", "second"))
    report = task.run(None, easy)
    inner = ZeroShot("first", "second")
    want = [inner.run(None, side).metrics["accuracy"] for side in (easy, hard)]
    assert report.metrics == pytest.approx(
        {"reference": want[0], "shifted": want[1], "drop": want[0] - want[1]}
    )
    assert report.metrics["drop"] > 0.1
    assert [r["split"] for r in report.tables["splits"]] == ["test", "hard"]
    assert report.chance == pytest.approx({"reference": 0.2, "shifted": 0.2})


def test_a_shift_of_labels_is_those_rows_and_the_rest():
    data = classified()
    data.labels[7] = -1
    report = Shift({"name": "retrieval", "from": "first", "to": "second"}, labels=["b", "d"]).run(None, data)
    for name, wanted in (("shifted", [1, 3]), ("reference", [0, 2, 4])):
        rows = torch.isin(data.labels, torch.tensor(wanted)).nonzero().flatten()
        part = {m: diagonal(i.vectors[rows]) for m, i in data.items.items()}
        want = Retrieval("first", "second").run(None, Table(part, len(rows)))
        assert report.metrics[name] == want.metrics["R@1"]
        assert report.intervals[name] == want.intervals["R@1"]
        assert report.chance[name] == want.chance["R@1"]
    low, high = report.intervals["drop"]
    assert low < report.metrics["drop"] < high


def test_classes_of_the_other_side_are_no_candidates():
    """Two classes are easier than five."""
    report = Shift(ZERO_SHOT, labels=["a", "b"]).run(None, classified())
    assert report.chance["shifted"] == pytest.approx(1 / 2)
    assert report.chance["reference"] == pytest.approx(1 / 3)


def test_effective_robustness_is_the_height_above_the_line():
    baseline = [(0.9, 0.7), (0.8, 0.55), (0.6, 0.3), (0.95, 0.8)]
    easy, hard = classified(noise=0.5), classified(noise=0.8, seed=1, name="hard")
    easy.others["hard"] = hard
    got = Shift(ZERO_SHOT, to="hard", baseline=baseline).run(None, easy)
    x, y = (np.log(v / (1 - v)) for v in np.array(baseline).T)
    slope, offset = np.polyfit(x, y, 1)
    reference = np.clip(got.metrics["reference"], 1e-3, 1 - 1e-3)
    expected = 1 / (1 + np.exp(-(slope * np.log(reference / (1 - reference)) + offset)))
    assert got.metrics["effective_robustness"] == pytest.approx(got.metrics["shifted"] - expected)
    low, high = got.intervals["effective_robustness"]
    assert low <= got.metrics["effective_robustness"] <= high


def test_the_interval_of_a_difference_by_hand():
    low, high = difference(Found(0.8, 0.7, 0.85, None), Found(0.6, 0.4, 0.65, None))
    assert low == pytest.approx(0.2 - (0.1**2 + 0.05**2) ** 0.5)
    assert high == pytest.approx(0.2 + (0.05**2 + 0.2**2) ** 0.5)


def test_the_interval_of_a_difference_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        found = []
        for share in (0.8, 0.6):
            hits = rng.random(100) < share
            half = 1.96 * hits.std() / 10
            found.append(Found(hits.mean(), hits.mean() - half, hits.mean() + half, None))
        low, high = difference(*found)
        held += low <= 0.2 <= high
    assert 0.9 <= held / 300 <= 0.99


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "labels"),
        ({"to": "x", "labels": ["a"]}, "labels"),
        ({"to": "x", "baseline": [[0.5, 0.4]]}, "two models"),
        ({"to": "x", "baseline": [0.5, 0.4]}, "baseline"),
        ({"to": "x", "baseline": [[50, 40], [60, 30]]}, "baseline"),
        ({"to": "x", "task": {"name": "gap", "between": ["a", "b"]}}, "lower"),
        ({"to": "x", "task": {"modality": "a"}}, "name"),
    ],
)
def test_senseless_questions_are_refused(arguments, match):
    with pytest.raises(UserError, match=match):
        Shift(**{"task": ZERO_SHOT, **arguments})


def test_what_the_data_do_not_have_is_named():
    data = classified()
    with pytest.raises(UserError, match="'test'"):
        Shift(ZERO_SHOT, to="test").run(None, data)
    with pytest.raises(UserError, match="no such class"):
        Shift(ZERO_SHOT, labels=["f"]).run(None, data)
    with pytest.raises(UserError, match="0 of others"):
        Shift(ZERO_SHOT, labels=list("abcde")).run(None, data)
    with pytest.raises(UserError, match="label"):
        Shift(ZERO_SHOT, labels=["a"]).run(None, replace(data, labels=None))
