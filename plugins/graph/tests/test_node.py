"""The node modality and its encoders: sampling, views, communities, exactness."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample, UserError
from modalign_graph.big_graph import load_graph
from modalign_graph.communities import keep_weights, louvain, strengths
from modalign_graph.neighbours import sample
from modalign_graph.node import Node
from modalign_graph.node_networks import GAT, GraphConv

torch.set_num_threads(1)
BARBELL = np.array(networkx.barbell_graph(8, 0).edges)


@pytest.fixture
def path(tmp_path):
    """Two cliques of eight nodes, joined by one edge; node i has feature i, and feature 16 + its side."""
    features = np.concatenate([np.eye(16), np.repeat(np.eye(2), 8, 0)], 1)
    np.savez(tmp_path / "g.npz", features=features, edges=BARBELL)
    return str(tmp_path / "g.npz")


def sparse(path: str, **change: object) -> str:
    """The same graph with compressed rows; each edge twice, and a loop."""
    graph = load_graph(path)
    edges = np.concatenate([graph.edges, graph.edges[:, ::-1], [[3, 3]]])
    arrays = {"indptr": graph.starts, "indices": graph.words, "data": graph.values,
              "shape": np.array([len(graph), graph.width]), "edges": edges}  # fmt: skip
    np.savez_compressed(path.replace("g.npz", "s.npz"), **{**arrays, **change})
    return path.replace("g.npz", "s.npz")


def test_dense_and_sparse_files_are_one_graph(path):
    one, two = load_graph(path), load_graph(sparse(path))
    for name in ("starts", "words", "values", "edges"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert (len(one), one.width) == (len(two), two.width) == (16, 18)


def test_scipy_s_own_file_with_edges_added(path, tmp_path):
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(np.concatenate([np.eye(16), np.repeat(np.eye(2), 8, 0)], 1))
    np.savez(tmp_path / "c.npz", data=matrix.data, indices=matrix.indices, indptr=matrix.indptr,
             shape=matrix.shape, edges=BARBELL)  # fmt: skip
    assert np.array_equal(load_graph(str(tmp_path / "c.npz")).words, load_graph(path).words)


def test_a_node_brings_neighbours_hop_by_hop(path):
    near = Node(path, neighbours=[100]).read(0)
    assert near.nodes[0] == 0
    assert set(near.nodes) == set(range(8))
    assert len(near.edges) == 7
    whole = Node(path, neighbours=[100, 100]).read(7)
    assert set(whole.nodes) == set(range(16))
    alone = Node(path, neighbours=[]).read("7")
    assert alone.nodes.tolist() == [7]
    assert alone.words.tolist() == [7, 16]


@settings(max_examples=20, deadline=None, database=None)
@given(st.integers(0, 15), st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99))
def test_sampled_edges_are_edges_and_few(tmp_path_factory, node, neighbours, seed):
    folder = tmp_path_factory.mktemp("g")
    np.savez(folder / "g.npz", features=np.eye(16), edges=BARBELL)
    graph = load_graph(str(folder / "g.npz"))
    nodes, edges, numbers = sample(graph, node, neighbours, seed)
    assert nodes[0] == node
    assert len(set(nodes)) == len(nodes)
    for (a, b), number in zip(edges, numbers, strict=True):
        assert sorted((nodes[a], nodes[b])) == graph.edges[number].tolist()
    assert len(edges) <= sum(int(np.prod(neighbours[: i + 1])) for i in range(len(neighbours)))
    again = sample(graph, node, neighbours, seed)
    assert np.array_equal(again[1], edges)


def test_another_seed_draws_others(path):
    draws = {tuple(Node(path, neighbours=[2], seed=s).read(0).nodes) for s in range(10)}
    assert len(draws) > 3


def test_two_layers_over_sampled_neighbours_are_two_layers_over_the_graph(path):
    torch.manual_seed(0)
    encoder = GraphConv(width=16, layers=2, features=32).eval()
    node = Node(path, neighbours=[100, 100])
    graph = load_graph(path)
    with torch.no_grad():
        found = encoder(node.collate([node.read(i) for i in range(16)])).tokens[:, 0]
        near = torch.eye(16)
        near[tuple(graph.edges.T)] = near[tuple(graph.edges.T[::-1])] = 1
        h = torch.zeros(16, 32)
        h[np.repeat(np.arange(16), 2), graph.words] = 2**-0.5
        h = h @ encoder.table.weight
        for conv in encoder.convs:
            h = torch.nn.functional.gelu(conv.linear(near / near.sum(1, keepdim=True) @ h))
        assert torch.allclose(found, encoder.last(h), atol=1e-5)


def test_without_layers_neighbours_do_not_matter(path):
    torch.manual_seed(0)
    encoder = GraphConv(width=8, layers=0).eval()
    near, alone = Node(path), Node(path, neighbours=[])
    with torch.no_grad():
        one, two = (encoder(n.collate([n.read(3)])).tokens for n in (near, alone))
    assert torch.allclose(one, two, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_views_leave_out_about_what_was_asked(seed, communities):
    node = Node(drop_edges=0.5, drop_features=0.2, communities=communities)
    batch = node.collate(node.example(200, seed))
    found = node.augment(batch, torch.Generator().manual_seed(seed))
    assert (found["edge_mask"] <= batch["edge_mask"]).all()
    slack = 0.25 if communities else 0.1  # of communities, the average over the whole graph is as asked
    assert abs(1 - found["edge_mask"].sum() / batch["edge_mask"].sum() - 0.5) < slack
    real = batch["values"] != 0
    assert abs(1 - (found["values"] != 0)[real].float().mean() - 0.2) < slack
    for words, before, after in zip(batch["words"], batch["values"], found["values"], strict=True):
        gone = set(words[(before != 0) & (after == 0)].tolist())
        kept = set(words[after != 0].tolist())
        assert not gone & kept  # a feature is left out in all nodes of a row alike
    with torch.no_grad():
        assert GAT(width=8, heads=2)(found).tokens.isfinite().all()


def test_communities_are_the_cliques_and_their_strengths_the_modularity():
    community = louvain(16, BARBELL)
    assert len(set(community[:8])) == len(set(community[8:])) == 1
    assert community[0] != community[8]
    graph = networkx.Graph(BARBELL.tolist())
    modularity = networkx.community.modularity(graph, [set(range(8)), set(range(8, 16))])
    assert strengths(community, BARBELL).sum() == pytest.approx(modularity)


def test_the_bridge_between_communities_goes_first():
    node, word = np.arange(16), np.arange(16)
    of_edge, of_word = keep_weights(16, BARBELL, node, word, np.ones(16), 16)
    bridge = (BARBELL == [7, 8]).all(1)
    assert of_edge[bridge].item() > 2
    assert of_edge[~bridge].max() < 1
    assert np.allclose(of_word, 1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (16, "0 to 15"), (-1, "from 0"), ("-1", "whole number"), ("", "empty"), ("1.5", "whole number"),
        (1.5, "float"), (float("nan"), "float"), (float("inf"), "float"), (True, "bool"), (None, "NoneType"),
        ("９", "whole number"), ("9" * 400, "whole number"), (10**30, "0 to 15"), ([1], "list"),
    ],
)  # fmt: skip
def test_says_why_it_refuses(path, value, reason):
    with pytest.raises(BadSample, match=reason):
        Node(path).read(value)


def test_reads_numbers_of_any_kind(path):
    node = Node(path)
    for value in (5, 5.0, "5", " 5", np.int32(5), np.float64(5)):
        assert node.read(value).nodes[0] == 5


def test_says_what_is_wrong_with_the_graph(path, tmp_path):
    with pytest.raises(UserError, match=r"read: \{graph"):
        Node().read(0)
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        Node(str(tmp_path / "nowhere.npz")).read(0)
    for change, reason in (
        ({"edges": np.array([[0, 16]])}, "outside"), ({"indptr": np.arange(5)}, "indptr"),
        ({"data": np.full(32, np.nan)}, "finite"), ({"edges": np.zeros((3, 3), int)}, "shape"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{reason}.*savez"):
            Node(sparse(path, **change)).read(0)


def test_pickled_data_is_never_loaded(path, tmp_path):
    class Boom:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    np.savez(tmp_path / "p.npz", features=np.eye(2), edges=np.array([[Boom(), 1]], dtype=object))
    with pytest.raises(UserError, match="no table of numbers"):
        Node(str(tmp_path / "p.npz")).read(0)


def test_another_file_is_another_fingerprint(path):
    first = Node(path).fingerprint()
    assert Node(path).fingerprint() == first != Node(sparse(path)).fingerprint()
    assert Node().fingerprint() == ""


def test_shows_its_number_and_neighbours(path):
    kind, content = Node(path).preview(Node(path, neighbours=[100]).read(7))
    assert kind == "text/plain"
    assert b"node 7" in content
    assert b"8" in content.splitlines()[2]


def test_says_which_arguments_are_wrong():
    with pytest.raises(ValueError, match="neighbours"):
        Node(neighbours=[0])
    with pytest.raises(ValueError, match="neighbours"):
        Node(neighbours=[1000, 1000])
    with pytest.raises(ValueError, match="drop_edges"):
        Node(drop_edges=1.0)
    with pytest.raises(ValueError, match="heads"):
        GAT(width=10, heads=4)
    with pytest.raises(ValueError, match="layers"):
        GraphConv(layers=-1)
