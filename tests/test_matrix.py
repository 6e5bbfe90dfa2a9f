"""Matrix: each cell is retrieval, means and their chance, what was trained, pairs that never meet."""

from dataclasses import dataclass, field

import pytest
import torch
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import Retrieval
from modalign.tasks.matrix import Matrix
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)
NAMES = ("first", "second", "third")


@dataclass
class Space:
    """What the task asks of a space."""

    modalities: tuple = NAMES
    stages: list = field(
        default_factory=lambda: [{"align": ["first", "second"]}, {"align": ["second", "third"]}]
    )


def diagonal(vectors, start=0):
    number = torch.arange(len(vectors))
    return Items(vectors, torch.stack([number, number + start], 1))


def noisy(rows=40, noise=(0.2, 0.8, 1.5)):
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % 4
    truth = normalize(torch.eye(8)[labels] + 0.5 * torch.randn(rows, 8, generator=g), dim=1)
    views = [normalize(truth + s / 8**0.5 * torch.randn(rows, 8, generator=g), dim=1) for s in noise]
    return Table({m: diagonal(v) for m, v in zip(NAMES, views, strict=True)}, rows, labels, tuple("wxyz"))


def test_every_cell_is_retrieval():
    data = noisy()
    report = Matrix(NAMES).run(Space(), data)
    cells = {(r["from"], r["to"]): r for r in report.tables["pairs"]}
    assert len(cells) == 6
    for (a, b), row in cells.items():
        want = Retrieval(a, b).run(None, data)
        for name in ("R@1", "class_R@1"):
            assert row[name] == want.metrics[name]
            assert (row[f"{name} low"], row[f"{name} high"]) == want.intervals[name]
            assert row[f"{name} chance"] == pytest.approx(want.chance[name])
        assert row["trained"] == ({a, b} != {"first", "third"})
    got = report.metrics
    for name in ("R@1", "class_R@1"):
        values = {k: r[name] for k, r in cells.items()}
        assert got[name] == pytest.approx(sum(values.values()) / 6)
        emergent = [values["first", "third"], values["third", "first"]]
        assert got[f"{name}_untrained"] == pytest.approx(sum(emergent) / 2)
        assert got[f"{name}_trained"] == pytest.approx((sum(values.values()) - sum(emergent)) / 4)
        low, high = report.intervals[name]
        assert low <= got[name] <= high
    assert got["worst_R@1"] == min(r["R@1"] for r in cells.values())
    assert report.chance["R@1"] == pytest.approx(1 / 40)


def test_it_measures_what_the_space_has_by_now():
    task = Matrix(NAMES)
    assert task.modalities == ("first", "second")
    report = task.run(Space(modalities=("first", "second"), stages=[{"align": ["first", "second"]}]), noisy())
    assert [(r["from"], r["to"]) for r in report.tables["pairs"]] == [
        ("first", "second"),
        ("second", "first"),
    ]
    assert "R@1_untrained" not in report.metrics


def test_pairs_that_share_no_row_meet_by_class():
    data = noisy()
    data.items["third"] = diagonal(data.items["third"].vectors[20:], 20)
    data.items["first"] = diagonal(data.items["first"].vectors[:20])
    report = Matrix(NAMES).run(Space(), data)
    (cell,) = (r for r in report.tables["pairs"] if (r["from"], r["to"]) == ("first", "third"))
    assert cell["R@1"] is None
    assert cell["class_R@1"] > 0.3
    assert "R@1_untrained" not in report.metrics
    assert "class_R@1_untrained" in report.metrics


def test_without_labels_and_with_half_of_them():
    data = noisy()
    data.labels[:20] = -1
    data.items["third"] = diagonal(data.items["third"].vectors[:20])
    cells = {(r["from"], r["to"]): r for r in Matrix(NAMES).run(Space(), data).tables["pairs"]}
    assert cells["third", "first"]["class_R@1"] is None
    assert cells["first", "third"]["class_R@1"] is None
    assert cells["first", "second"]["class_R@1"] is not None
    data.labels = None
    report = Matrix(NAMES).run(Space(), data)
    assert not any("class" in name for name in report.metrics)
    assert set(report.figures) == {"R@1"}


def test_the_interval_draws_rows_and_not_queries():
    """Every row three times over tells no more than once."""
    data = noisy(noise=(1.0, 1.0, 1.0))
    same = dict.fromkeys(NAMES, data.items["first"]) | {"second": data.items["second"]}
    one = Matrix(["first", "second"]).run(Space(), data).intervals["R@1"]
    thrice = Matrix(NAMES).run(Space(), Table({**same, "third": data.items["first"]}, 40))
    wide, narrow = one[1] - one[0], thrice.intervals["R@1_trained"][1] - thrice.intervals["R@1_trained"][0]
    assert narrow > 0.8 * wide


def test_the_heat_map_stars_what_was_never_trained():
    figure = Matrix(NAMES).run(Space(), noisy()).figures["R@1"]
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert len(texts) == 6
    assert sum(t.endswith("*") for t in texts) == 2


def test_what_cannot_be_measured_is_named():
    with pytest.raises(UserError):
        Matrix(["first"])
    data = noisy()
    data.items["second"] = diagonal(data.items["second"].vectors[:20], 20)
    data.items["first"] = diagonal(data.items["first"].vectors[:20])
    with pytest.raises(UserError, match=r"no row.*first, second"):
        Matrix(["first", "second"]).run(Space(), data)


def test_classes_that_only_one_side_has_are_not_asked():
    axes = torch.eye(6)
    labels = torch.tensor([0, 1, 2, 2, 0, 1, 3])  # class 2 in the first alone, class 3 in the second alone
    found = {"first": diagonal(axes[:4]), "second": diagonal(axes[[0, 1, 5]], start=4)}
    data = Table(found | {"third": diagonal(axes[:4])}, 7, labels, tuple("wxyz"))
    rows = {(r["from"], r["to"]): r for r in Matrix(NAMES).run(Space(), data).tables["pairs"]}
    assert rows["first", "second"]["class_R@1"] == rows["second", "first"]["class_R@1"] == 1
    assert rows["first", "second"]["class_R@1 chance"] == pytest.approx(1 / 3)
    assert rows["second", "first"]["class_R@1 chance"] == pytest.approx(1 / 4)
