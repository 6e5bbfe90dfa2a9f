"""Few-shot: draws, weights, scikit-learn, Student's intervals, and what a helpful modality brings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import FewShot, few_shot
from modalign.tasks.labelled import Labelled, labelled
from modalign.testing import task as kit
from sklearn.linear_model import LogisticRegression

from .splits import cloud, digits, items, rows_of

torch.set_num_threads(1)
quick = settings(max_examples=20, deadline=None)


def pair(seed=0, spread=2.0, **sizes):
    """Pictures far from their centres, words near them."""
    data = digits(seed, spread=spread, **sizes)
    rng = np.random.default_rng(seed)
    for split in data.others.values():
        split.items["word"] = items(
            cloud(rng, split.labels.numpy(), spread=0.1), [[i, i] for i in range(split.rows)]
        )
    return data


@quick
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=1, max_size=25), st.integers(1, 6))
def test_draws_are_k_of_each_class_and_contain_the_smaller_ones(seed, labels, k):
    rng = np.random.default_rng(seed)
    found = labelled(None, rows_of("train", labels, a=rng.normal(size=(len(labels), 3))), ("a",))
    some, more = few_shot.draw(found, k, seed), few_shot.draw(found, k + 1, seed)
    want = {c: min(k, labels.count(c)) for c in set(labels)}
    assert {c: (some.pairs[:, 1] == c).sum().item() for c in want} == want
    rows = {tuple(v.tolist()) for v in more.vectors}
    assert all(tuple(v.tolist()) in rows for v in some.vectors)
    for place, c in some.pairs.tolist():
        (row,) = (found.vectors == some.vectors[place]).all(1).nonzero().tolist()
        assert labels[row[0]] == c
    assert len(rows) == len(more)


def test_seeds_draw_differently_and_every_item_may_be_drawn():
    found = labelled(None, rows_of("train", [0] * 6 + [1] * 6, a=np.eye(12)), ("a",))
    drawn = [few_shot.draw(found, 1, seed).vectors.argmax(1).tolist() for seed in range(60)]
    assert {a for pair in drawn for a in pair} == set(range(12))
    assert few_shot.draw(found, 1, 5).vectors.argmax(1).tolist() == drawn[5]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]))
def test_equals_scikit_learn(seed, k):
    data = pair(seed)
    train = [labelled(None, data.others["train"], (m,)) for m in ("picture", "word")]
    asked, truth = data.items["picture"].vectors.numpy(), data.labels.numpy()
    alone, helped = [], []
    for s in range(3):
        drawn = [few_shot.draw(t, k, s) for t in train]
        x = [d.vectors[d.pairs[:, 0]].numpy() for d in drawn]
        y = [d.pairs[:, 1].numpy() for d in drawn]
        model = LogisticRegression(max_iter=1000)
        alone.append((model.fit(x[0], y[0]).predict(asked) == truth).mean())
        helped.append((model.fit(np.concatenate(x), np.concatenate(y)).predict(asked) == truth).mean())
    got = FewShot("picture", "word", shots=k, seeds=3).run(None, data)
    assert got.metrics == pytest.approx(
        {
            "accuracy": np.mean(helped),
            f"accuracy@{k}": np.mean(alone),
            f"cross_accuracy@{k}": np.mean(helped),
            f"gain@{k}": np.mean(helped) - np.mean(alone),
        }
    )
    assert [row[f"accuracy@{k}"] for row in got.tables["seeds"]] == pytest.approx(alone)
    from scipy.stats import t

    want = t.interval(0.95, 2, np.mean(helped), np.std(helped, ddof=1) / np.sqrt(3))
    if np.std(helped):
        assert got.intervals["accuracy"] == pytest.approx(want)


def test_another_modality_weighs_in_each_class_as_much_as_the_shots():
    """Two shots of class 0 and one of class 1; three words of class 0, none of class 1, four of 5."""
    shots = Labelled(torch.eye(3), torch.tensor([[0, 0], [1, 0], [2, 1]]))
    words = Labelled(torch.eye(3), torch.tensor([[0, 0], [1, 0], [2, 0]]))
    both, weights = few_shot.together([shots, words])
    assert weights.tolist() == pytest.approx([1, 1, 1, 2 / 3, 2 / 3, 2 / 3])
    assert both.pairs.tolist() == [[0, 0], [1, 0], [2, 1], [3, 0], [4, 0], [5, 0]]
    assert len(both) == 6


def test_repeating_what_helps_changes_nothing():
    """Every word of the class as a twin with its own row: the same direction, twice as often."""
    data = pair(1, train=8)
    train = data.others["train"]
    task = FewShot("picture", "word", shots=100, seeds=1)
    before = task.run(None, data).metrics
    word = train.items["word"]
    train.items["word"] = Items(
        word.vectors.repeat(2, 1), torch.cat([word.links, word.links + torch.tensor([8, 0])])
    )
    assert task.run(None, data).metrics == before


def test_words_near_the_centres_help_and_words_elsewhere_do_not():
    data = pair(0, spread=1.5, test=200)
    helped = FewShot("picture", "word", shots=[1, 2, 4]).run(None, data)
    assert helped.metrics["gain@1"] > 0.05
    assert helped.intervals["gain@1"][0] > 0
    train = data.others["train"]
    wrong = cloud(np.random.default_rng(0), (train.labels.numpy() + 1) % 4, spread=0.1)
    train.items["word"] = items(wrong, train.items["word"].links.tolist())
    assert FewShot("picture", "word", shots=[1]).run(None, data).metrics["gain@1"] < 0


def test_both_classifiers_get_the_same_shots():
    data = pair(0)
    alone, helped = (FewShot("picture", cross, [2]).run(None, data) for cross in ((), ["word"]))
    assert alone.metrics["accuracy@2"] == helped.metrics["accuracy@2"] == alone.metrics["accuracy"]
    assert set(alone.metrics) == {"accuracy", "accuracy@2"}
    assert helped.chance["cross_accuracy@2"] == 0.25
    assert helped.chance["gain@2"] == 0


def test_a_class_with_no_shot_is_not_asked_and_one_with_few_gives_all():
    train = rows_of(
        "train", [0, 0, 0, 1, -1], picture=np.eye(4)[[0, 0, 0, 1, 2]], word=np.eye(4)[[0, 0, 0, 1, 2]]
    )
    train.items["picture"] = items(np.eye(4), [[0, 0], [1, 3], [2, 4], [3, 1]])
    data = rows_of("test", [0, 1, 2, -1], picture=np.eye(4))
    data.others = {"train": train}
    got = FewShot("picture", "word", shots=9, seeds=2, C=100).run(None, data)
    assert got.tables["sizes"] == [{"items": 2, "left_out": 2, "classes": 2, "seeds": 2}]
    assert got.metrics["accuracy@9"] == 1


def test_a_missing_modality_is_named():
    data = pair(0)
    train = data.others["train"]
    train.items["word"] = Items(torch.zeros(0, 8), torch.zeros(0, 2, dtype=torch.long))
    with pytest.raises(UserError, match="word"):
        FewShot("picture", "word").run(None, data)
    train.items["word"] = items(np.eye(1, 8), [[0, 0]])
    train.items["picture"] = Items(
        train.items["picture"].vectors[1:], train.items["picture"].links[:-1] + torch.tensor([0, 1])
    )
    train.labels = train.labels.clamp(min=1)
    train.labels[0] = 0
    with pytest.raises(UserError, match="no word"):
        FewShot("picture", "word").run(None, data)


def test_one_seed_has_no_interval():
    got = FewShot("picture", shots=[1], seeds=1).run(None, digits())
    assert got.intervals == {}
    assert got.figures["shots"].axes


@pytest.mark.parametrize(
    "kwargs", [{"shots": []}, {"shots": [0]}, {"shots": 1.5}, {"seeds": 0}, {"C": 0}, {"cross": ["picture"]}]
)
def test_senseless_questions_are_refused(kwargs):
    with pytest.raises(UserError):
        FewShot("picture", **kwargs)


def test_the_contract():
    kit.check_task_reports_its_primary(lambda: FewShot("a", shots=1))
    kit.check_task_is_deterministic(lambda: FewShot("a", ["b", "c"], shots=[1, 2], seeds=2))
    task = FewShot("a", ["b", "c"])
    assert (task.about, task.modalities) == ("a<-b+c", ("a", "b", "c"))
    assert FewShot("a").about == "a"


def test_the_figure_is_drawn(tmp_path: Path):
    got = FewShot("picture", "word", shots=[1, 4], seeds=2).run(None, pair(0))
    got.figures["shots"].savefig(tmp_path / "shots.png")
    assert (tmp_path / "shots.png").stat().st_size > 5000
