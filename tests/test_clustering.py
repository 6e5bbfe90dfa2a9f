"""Clustering: scikit-learn's scores, SciPy's matching, brute force over permutations, edges."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import Clustering, clustering
from modalign.testing import task as kit
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from .splits import Table, cloud, items, rows_of

torch.set_num_threads(1)
quick = settings(max_examples=50, deadline=None)
partitions = st.integers(1, 4).flatmap(
    lambda c: st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=30)
)


@quick
@given(partitions)
def test_scores_equal_scikit_learn(pairs):
    """Empty classes and clusters, single items, one part only."""
    clusters, truth = np.array(pairs).T
    table = clustering.contingency(torch.tensor(clusters), torch.tensor(truth), 4)
    assert float(clustering.nmi(table)) == pytest.approx(
        normalized_mutual_info_score(truth, clusters), abs=1e-9
    )
    assert float(clustering.ari(table)) == pytest.approx(adjusted_rand_score(truth, clusters), abs=1e-9)


@quick
@given(partitions)
def test_the_matching_is_the_best_of_all_permutations(pairs):
    clusters, truth = torch.tensor(pairs).T
    match = clustering.matching(clustering.contingency(clusters, truth, 4))
    best = max((torch.tensor(p)[clusters] == truth).sum().item() for p in itertools.permutations(range(4)))
    assert sorted(match.tolist()) == [0, 1, 2, 3]
    assert (match[clusters] == truth).sum().item() == best


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 4.0]))
def test_the_task_is_k_means_on_unit_rows(seed, spread):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), rng.integers(0, 4, 56)])
    data = rows_of("test", labels, picture=3 * cloud(rng, labels, spread=spread))
    vectors = data.items["picture"].vectors / 3
    clusters = KMeans(4, n_init=10, random_state=0).fit_predict(vectors.numpy())
    got = Clustering("picture").run(None, data)
    assert got.metrics["NMI"] == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=0.02)
    assert got.metrics["ARI"] == pytest.approx(adjusted_rand_score(labels, clusters), abs=0.02)
    for name in ("NMI", "ARI", "accuracy"):
        low, high = got.intervals[name]
        assert low - 0.05 <= got.metrics[name] <= high + 0.05
        assert got.metrics[name] > got.chance[name] - 0.1
    if spread == 0.1:
        assert got.metrics == pytest.approx({"NMI": 1, "ARI": 1, "accuracy": 1})


def test_by_hand():
    """Two places, three items each; one item of class 1 lies with class 0."""
    data = rows_of("test", [0, 0, 0, 1, 1, 1], picture=np.eye(2)[[0, 0, 0, 0, 1, 1]])
    got = Clustering("picture").run(None, data).metrics
    both, rows, columns, total = 3 + 0 + 0 + 1, 6 + 1, 3 + 3, 15
    assert got["ARI"] == pytest.approx(
        (both - rows * columns / total) / ((rows + columns) / 2 - rows * columns / total)
    )
    assert got["accuracy"] == pytest.approx(5 / 6)


def test_chance_is_what_clusters_without_a_meaning_reach():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200)
    got = Clustering("picture").run(None, rows_of("test", labels, picture=rng.normal(size=(200, 8))))
    for name, within in (("NMI", 0.03), ("ARI", 0.03), ("accuracy", 0.05)):
        assert got.metrics[name] == pytest.approx(got.chance[name], abs=within)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_a_collapsed_space_shows_no_class():
    labels = [0, 0, 0, 1, 2]
    got = Clustering("picture").run(None, rows_of("test", labels, picture=np.ones((5, 3))))
    assert got.metrics == pytest.approx({"NMI": 0, "ARI": 0, "accuracy": 0.6})


def test_items_without_a_label_or_with_several_are_left_out():
    vectors = np.eye(4)
    data = Table({"a": items(vectors, [[0, 0], [1, 1], [2, 2], [2, 3], [3, 4]])}, 5)
    data.labels = torch.tensor([0, 1, 0, 1, -1])
    got = Clustering("a").run(None, data)
    assert got.tables["sizes"] == [{"items": 2, "left_out": 2, "classes": 2}]
    assert got.metrics["accuracy"] == 1


def test_a_class_of_which_only_shared_items_are_left_is_no_class():
    data = Table({"a": items(np.eye(3), [[0, 0], [1, 1], [2, 0], [2, 2]])}, 3, torch.tensor([0, 1, 2]))
    assert Clustering("a").run(None, data).tables["sizes"][0]["classes"] == 2


@pytest.mark.parametrize("labels", [[4], [3, 3, 3], [0, -1]])
def test_one_class_is_no_question(labels):
    with pytest.raises(UserError, match="two"):
        Clustering("a").run(None, rows_of("test", labels, a=np.eye(len(labels), 3)))


def test_nothing_to_cluster_is_said():
    data = rows_of("test", [0, 1], a=np.eye(2))
    data.items["a"] = Items(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.long))
    with pytest.raises(UserError, match="no readable a"):
        Clustering("a").run(None, data)
    with pytest.raises(UserError, match="label"):
        Clustering("a").run(None, Table(data.items, 2))
    with pytest.raises(UserError, match="starts"):
        Clustering("a", starts=0)


def test_the_contract():
    kit.check_task_reports_its_primary(lambda: Clustering("a"))
    kit.check_task_is_deterministic(lambda: Clustering(["a", "b"]))
    assert (Clustering("a").about, Clustering(["a", "b"]).modalities) == ("a", ("a", "b"))
