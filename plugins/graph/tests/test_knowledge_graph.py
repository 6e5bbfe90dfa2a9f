"""The knowledge-graph modality and its encoders: formats agree, order and padding do not matter."""

from __future__ import annotations

import json
import sys

import pytest
import rdflib
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample, UserError
from modalign_graph.knowledge_graph import KnowledgeGraph, decode_names, sentences
from modalign_graph.name_grams import NameGrams
from modalign_graph.relational_gnn import RelationalGNN
from modalign_graph.triples import words

torch.set_num_threads(1)
GRAPH = KnowledgeGraph()
TRIPLES = [("Aarhus Airport", "runway length", "2702.0"), ("Aarhus Airport", "located in", "Århus")]
NAME = st.text("abcXYZ éß世_ 0189-", min_size=1, max_size=12).filter(lambda t: words(t))
ROWS = st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=6)


def as_rdf(form: str) -> str:
    graph, ex = rdflib.Graph(), rdflib.Namespace("http://example.org/things/")
    graph.add((ex.Aarhus_Airport, ex.runwayLength, rdflib.Literal("2702.0")))
    graph.add((ex.Aarhus_Airport, ex.locatedIn, ex["Århus"]))
    return graph.serialize(format=form)


def test_formats_agree(tmp_path):
    (tmp_path / "a.ttl").write_text(as_rdf("turtle"), encoding="utf-8")
    rows = [["Aarhus_Airport", "runwayLength", 2702.0], ["Aarhus_Airport", "locatedIn", "Århus"]]
    values = [rows, json.dumps(rows), json.dumps(rows).encode("utf-8-sig"), tmp_path / "a.ttl"]
    values += [as_rdf("turtle"), as_rdf("nt"), as_rdf("nt").encode()]
    for value in values:
        assert sorted(GRAPH.read(value).triples) == sorted(TRIPLES)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("leaderName", "leader Name"), ("Jacob_Bundsgaard", "Jacob Bundsgaard"), ('"2,700"', "2,700"),
        ("isPartOf", "is Part Of"), ("ICAO_Identifier", "ICAO Identifier"), ("iPhone 5", "iPhone 5"),
        ("  a\n b ", "a b"), ("U.S.", "U.S."),
    ],
)  # fmt: skip
def test_names_read_like_words(name, written):
    assert words(name) == written


def test_turtle_with_blank_nodes_lists_and_literals():
    text = '@prefix : <http://e.org/> . :A a :City ; :near [ :name "x"@en ] ; :area 5 ; :at "1E9"^^:t .'
    found = GRAPH.read(text).triples
    assert set(found) == {
        ("A", "type", "City"), ("A", "near", "unnamed 1"), ("unnamed 1", "name", "x"), ("A", "area", "5"),
        ("A", "at", "1E9"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "no triples"), ("[]", "no triples"), ([], "no triples"),
        ("hello", "neither"),
        ('[["a","b"]]', "subject, predicate"), ('[["a","b",null]]', "NoneType"), ("[] a <x>", "neither"),
        ('[["a","","c"]]', "empty name"),
        ('[["a","b",true]]', "bool"), ("[[" * 50_000, "end|damaged"), ('{"a": 1}', "list"), (5, "int"),
        (b"\xff\xfe", "UTF-8"), ('[["\\ud800","b","c"]]', "Unicode"), ("x" * 200_000, "characters"),
        ([["a", "b", "c"]] * 300, "at most 256"),
    ],
)  # fmt: skip
def test_says_why_it_refuses(value, reason):
    with pytest.raises(BadSample, match=reason):
        GRAPH.read(value)


def test_asks_nobody_for_what_an_iri_points_to(monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    GRAPH.read("@base <http://127.0.0.1:9/> . @prefix : <http://127.0.0.1:9/x#> . :a a <b> .")
    with pytest.raises(BadSample):
        GRAPH.read('{"@context": "http://127.0.0.1:9/c", "@id": "a"}')


def test_leaves_rdflib_as_it_was():
    before = rdflib.NORMALIZE_LITERALS
    GRAPH.read(as_rdf("turtle"))
    assert rdflib.NORMALIZE_LITERALS is before is True


@settings(max_examples=30, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_a_batch_holds_what_was_read(graphs):
    items = [GRAPH.read([list(row) for row in rows]) for rows in graphs]
    batch = GRAPH.collate(items)
    for i, names in enumerate(decode_names(batch)):
        rows = batch["triples"][i][batch["triple_mask"][i]].tolist()
        assert [tuple(names[j] for j in row) for row in rows] == list(items[i].triples)
        text = batch["bytes"][i][batch["mask"][i]].numpy().tobytes().decode()
        assert text == sentences(items[i].triples)
        things = batch["thing_mask"][i]
        assert {names[j] for j in things.nonzero().flatten().tolist()} == {
            name for s, _, o in items[i].triples for name in (s, o)
        }


@settings(max_examples=15, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(0, 1000))
def test_a_variant_is_a_part_in_some_order(graphs, seed):
    items = [GRAPH.read([list(row) for row in rows]) for rows in graphs]
    batch = GRAPH.collate(items)
    found = GRAPH.augment(batch, torch.Generator().manual_seed(seed))
    for i, names in enumerate(decode_names(found)):
        rows = found["triples"][i][found["triple_mask"][i]].tolist()
        kept = [tuple(names[j] for j in row) for row in rows]
        assert kept
        assert set(kept) <= set(items[i].triples)
        assert found["bytes"][i][found["mask"][i]].numpy().tobytes().decode() == sentences(kept)
    with torch.no_grad():
        mask = RelationalGNN(width=8, heads=2, buckets=64).eval()(found).mask
    assert (mask.sum(1) >= 2).all()


def test_a_variant_keeps_most_triples_and_no_thing_without_any():
    graph = KnowledgeGraph(drop=0.25)
    item = graph.read([["a", "p", f"b{i}"] for i in range(8)])
    batch = graph.collate([item] * 100)
    found = graph.augment(batch, torch.Generator().manual_seed(0))
    alive = found["triple_mask"].sum(1)
    assert 0.7 < alive.float().mean() / 8 < 0.8
    with torch.no_grad():
        mask = RelationalGNN(width=8, heads=2, buckets=64).eval()(found).mask
    assert torch.equal(mask.sum(1), 1 + 2 * alive)  # the subject, an object for each triple, the triples


@settings(max_examples=10, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_triples_does_not_matter_to_message_passing(rows, draw):
    torch.manual_seed(0)
    encoder = RelationalGNN(width=16, heads=2, buckets=512).eval()
    other = draw.sample(rows, len(rows))
    sums = []
    for graph in (rows, other):
        with torch.no_grad():
            features = encoder(GRAPH.collate([GRAPH.read([list(r) for r in graph])]))
        sums.append((features.tokens * features.mask.unsqueeze(-1)).sum((0, 1)))
    assert torch.allclose(*sums, atol=1e-3)


def test_direction_and_relation_matter_to_message_passing():
    torch.manual_seed(0)
    encoder = RelationalGNN(width=16, heads=2).eval()
    values = [[["a", "likes", "b"]], [["b", "likes", "a"]], [["a", "hates", "b"]]]
    with torch.no_grad():
        one, two, three = encoder(GRAPH.collate([GRAPH.read(v) for v in values])).tokens.mean(1)
    assert not torch.allclose(one, two, atol=1e-3)
    assert not torch.allclose(one, three, atol=1e-3)


def test_a_name_is_the_same_in_any_row_and_case():
    grams = NameGrams(8, 1024)
    a, b = torch.zeros(2, 30, dtype=torch.uint8), torch.zeros(1, 6, dtype=torch.uint8)
    a[0, :6] = torch.tensor(list(b"Danube"))
    a[1] = 97
    b[0] = torch.tensor(list(b"danube"))
    assert torch.allclose(grams(a)[0], grams(b)[0], atol=1e-6)
    near, far = grams(torch.tensor([list(b"danubes"), list(b"everest")], dtype=torch.uint8))
    assert (
        torch.cosine_similarity(near, grams(b)[0], dim=0)
        > torch.cosine_similarity(far, grams(b)[0], dim=0) + 0.3
    )


def test_linearised_is_the_text_encoder_on_sentences():
    pytest.importorskip("modalign_text")
    from modalign_graph.linearised import Linearised
    from modalign_text.minilm import MiniLM
    from modalign_text.modality import Text

    item = GRAPH.read([list(row) for row in TRIPLES])
    encoder, text = Linearised("minilm"), Text()
    with torch.no_grad():
        found = encoder.eval()(GRAPH.collate([item])).tokens
        want = MiniLM().eval()(text.collate([sentences(item.triples)])).tokens
    assert torch.allclose(found, want, atol=1e-5)
    assert encoder.pretrained
    assert encoder.extras == ("text", "minilm")


def test_linearised_says_what_to_install(monkeypatch):
    from modalign_graph.linearised import Linearised

    monkeypatch.setitem(sys.modules, "modalign_text.hf_text", None)
    with pytest.raises(UserError, match=r"modalign-graph\[text\]"):
        Linearised("minilm")


def test_says_which_arguments_are_wrong():
    with pytest.raises(ValueError, match="max_triples"):
        KnowledgeGraph(max_triples=0)
    with pytest.raises(ValueError, match="heads"):
        RelationalGNN(width=10, heads=4)
