"""Missing: each subset is the inner task on the same rows; importance is Shapley's; refusals."""

from itertools import permutations

import pytest
import torch
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import Retrieval, ZeroShot
from modalign.tasks.missing import Missing, shapley, subsets
from modalign.tasks.views import SomeRows, rows_with_all
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)
NAMES = ("first", "second", "third")


def diagonal(vectors, rows=None):
    rows = torch.arange(len(vectors)) if rows is None else torch.tensor(rows)
    return Items(vectors, torch.stack([torch.arange(len(vectors)), rows], 1))


def noisy(rows=40, noise=(0.5, 1.0, 3.0), d=8):
    """Three views of one vector per row, the noisier the later; the answer is the vector."""
    g = torch.Generator().manual_seed(0)
    truth = normalize(torch.randn(rows, d, generator=g), dim=1)
    found = {
        m: normalize(truth + s / d**0.5 * torch.randn(rows, d, generator=g), dim=1)
        for m, s in zip(NAMES, noise, strict=True)
    }
    return Table({m: diagonal(v) for m, v in {**found, "answer": truth}.items()}, rows)


def retrieval(**more):
    return {"name": "retrieval", "from": list(NAMES), "to": "answer", "combine": "sum", **more}


def test_every_subset_is_the_inner_task():
    data = noisy()
    report = Missing(retrieval()).run(None, data)
    rows = {r["modalities"]: r for r in report.tables["subsets"]}
    assert len(rows) == 7
    for subset in subsets(NAMES):
        want = Retrieval(subset, "answer", combine="sum").run(None, data)
        got = rows[" + ".join(subset)]
        assert got["value"] == want.metrics["R@1"]
        assert (got["low"], got["high"]) == want.intervals["R@1"]
        assert got["chance"] == pytest.approx(1 / 40)
    values = [r["value"] for r in rows.values()]
    got = report.metrics
    assert got["full"] == rows["first + second + third"]["value"]
    assert got["mean"] == pytest.approx(sum(values) / 7)
    assert got["worst"] == min(values)
    assert got["without_first"] == rows["second + third"]["value"]
    assert sum(got[f"importance_{m}"] for m in NAMES) == pytest.approx(got["full"] - 1 / 40)
    assert got["importance_first"] > got["importance_third"]
    assert report.tables["importance"][0]["modality"] == "first"
    assert set(report.intervals) == {"full", "without_first", "without_second", "without_third"}


def test_shapley_is_the_mean_over_orders():
    g = torch.Generator().manual_seed(1)
    value = {s: float(torch.rand((), generator=g)) for s in [(), *subsets(NAMES)]}

    def gain(order, m):
        before = set(order[: order.index(m)])
        return (
            value[tuple(n for n in NAMES if n in before or n == m)]
            - value[tuple(n for n in NAMES if n in before)]
        )

    got = shapley(NAMES, value)
    for m in NAMES:
        orders = list(permutations(NAMES))
        assert got[m] == pytest.approx(sum(gain(o, m) for o in orders) / len(orders))


def test_what_only_both_show_is_worth_the_same_in_each():
    """answer = first · second: alone each is at chance."""
    g = torch.Generator().manual_seed(0)
    first, second = ((torch.randint(0, 2, (64, 32), generator=g) * 2 - 1) / 32**0.5 for _ in range(2))
    vectors = {"first": first, "second": second, "answer": normalize(first * second, dim=1)}
    task = Missing({"name": "retrieval", "from": ["first", "second"], "to": "answer"})
    got = task.run(None, Table({m: diagonal(v) for m, v in vectors.items()}, 64)).metrics
    assert got["full"] == 1
    assert got["importance_first"] == pytest.approx(got["importance_second"], abs=0.1)
    assert got["worst"] < 0.15


def test_only_rows_with_all_are_asked_and_every_candidate_stays():
    data = noisy()
    data.items["third"] = diagonal(data.items["third"].vectors[:25], list(range(10, 35)))
    task = Missing(retrieval())
    report = task.run(None, data)
    kept = rows_with_all(None, data, NAMES)
    assert kept.nonzero().flatten().tolist() == list(range(10, 35))
    first = Items(data.items["first"].vectors[10:35], diagonal(torch.zeros(25, 1), list(range(10, 35))).links)
    want = Retrieval("first", "answer").run(None, Table(data.items | {"first": first}, 40))
    (alone,) = (r for r in report.tables["subsets"] if r["modalities"] == "first")
    assert alone["value"] == want.metrics["R@1"]
    assert alone["chance"] == pytest.approx(1 / 40)


def test_zero_shot_with_labels():
    data = noisy(30)
    data.labels, data.classes = torch.arange(30), tuple(map(str, range(30)))
    task = Missing({"name": "zero_shot", "modality": ["first", "second"], "classes": "answer"})
    assert (task.about, task.modalities) == ("zero_shot:first+second", ("first", "second", "answer"))
    want = ZeroShot("second", "answer").run(None, data).metrics["accuracy"]
    assert task.run(None, data).metrics["without_first"] == want


def test_a_view_of_rows_renumbers_items():
    links = torch.tensor([[0, 0], [1, 1], [1, 2], [2, 3]])
    data = Table({"first": Items(torch.eye(3), links)}, 4, torch.arange(4))
    kept = torch.tensor([False, False, True, True])
    view = SomeRows(data, kept, None, "some")
    got = view.embed(None, "first")
    assert got.vectors.tolist() == torch.eye(3)[1:].tolist()
    assert got.links.tolist() == [[0, 2], [1, 3]]
    assert view.labels.tolist() == [-1, -1, 2, 3]
    limited = SomeRows(data, kept, ("other",), "some")
    assert limited.embed(None, "first") is data.items["first"]
    assert limited.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("task", "more", "match"),
    [
        ({"from": "a"}, {}, "name"),
        ({"name": "retrieval", "from": "a", "to": "b"}, {}, "1 modalities"),
        ({"name": "retrieval", "from": list("abcdefg"), "to": "z"}, {}, "7 modalities"),
        ({"name": "retrieval", "from": ["a", "b"], "too": "c"}, {}, "too"),
        ({"name": "retreival", "from": ["a", "b"], "to": "c"}, {}, "retrieval"),
        ({"name": "retrieval", "from": ["a", "b"], "to": "c"}, {"over": "modality"}, "modality"),
        ({"name": "gap", "between": ["a", "b"]}, {"over": "between"}, "lower|two"),
    ],
)
def test_senseless_questions_are_refused(task, more, match):
    with pytest.raises(UserError, match=match):
        Missing(task, **more)


def test_no_row_with_all_is_named():
    data = noisy()
    data.items["first"] = diagonal(data.items["first"].vectors[:20])
    data.items["second"] = diagonal(data.items["second"].vectors[20:], list(range(20, 40)))
    with pytest.raises(UserError, match=r"no row.*first, second"):
        Missing(retrieval()).run(None, data)
