"""Plain baselines for the graph examples: linear models and word counts, on the same splits.

python benchmarks/plain_graph.py [chebi20] [webnlg] [cora]      # MODALIGN_DATA is the folder of the data
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from modalign.tasks.retrieval import retrieval_metrics
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.preprocessing import normalize

DATA = Path(os.environ.get("MODALIGN_DATA", "../shared/data"))


def minilm(texts: list[str]) -> np.ndarray:
    """``(N, 384)``: unit mean tokens of the untrained sentence encoder."""
    from modalign_text.minilm import MiniLM
    from modalign_text.modality import Text

    encoder, text = MiniLM().eval(), Text()
    found = np.zeros((len(texts), encoder.width), np.float32)
    order = np.argsort([len(t) for t in texts])
    with torch.no_grad():
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            features = encoder(text.collate([text.read(texts[i]) for i in rows]))
            mask = features.mask.unsqueeze(-1)  # (n, T, 1)
            found[rows] = ((features.tokens * mask).sum(1) / mask.sum(1)).numpy()
    return normalize(found)


def both_ways(name: str, a: np.ndarray, b: np.ndarray) -> Iterator[str]:
    """A line for each direction of retrieval."""
    a, b = torch.tensor(normalize(a)), torch.tensor(normalize(b))
    for way, queries, candidates in (("there", a, b), ("back", b, a)):
        m = retrieval_metrics(queries.float(), candidates.float())
        yield f"{name}, {way}: R@1 {m['R@1']:.3f}  R@10 {m['R@10']:.3f}  MRR {m['MRR']:.3f}"


def chebi20() -> Iterator[str]:
    """Ridge from n-grams of SMILES to the sentence encoder's vectors."""
    table = pd.read_parquet(DATA / "chebi20.parquet")
    train, test = (table.split == "train").to_numpy(), (table.split == "test").to_numpy()
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, lowercase=False, sublinear_tf=True)
    x = grams.fit(table.smiles[train]).transform(table.smiles).toarray().astype(np.float32)
    y = minilm(table.text.tolist())
    model = RidgeCV([0.1, 0.3, 1, 3, 10]).fit(x[train], y[train])
    yield from both_ways("chebi20: molecule to text by ridge", model.predict(x[test]), y[test])


def webnlg() -> Iterator[str]:
    """The first text of each graph and its triples as words: counts of n-grams, and the sentence encoder."""
    from modalign_graph.knowledge_graph import KnowledgeGraph, sentences

    table = pd.read_parquet(DATA / "webnlg.parquet")
    table = table[table.split != "val"]
    reader = KnowledgeGraph()
    graphs = [sentences(reader.read(triples).triples) for triples in table.triples]
    texts = [json.loads(t)[0] for t in table.texts_en]
    train = (table.split == "train").to_numpy()
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True)
    grams.fit([t for t, seen in zip(texts, train, strict=True) if seen])
    for part, seen in (("seen", "1"), ("unseen", "0")):
        rows = np.flatnonzero(((table.split == "test") & (table.seen_category == seen)).to_numpy())
        a, b = [graphs[i] for i in rows], [texts[i] for i in rows]
        counts = grams.transform(a), grams.transform(b)
        yield from both_ways(f"webnlg {part}: n-grams", *(x.toarray() for x in counts))
        yield from both_ways(f"webnlg {part}: untrained MiniLM", minilm(a), minilm(b))


def cora() -> Iterator[str]:
    """Logistic regression on a paper's words, on its neighbourhood's, and on both."""
    table, graph = pd.read_csv(DATA / "cora.csv"), np.load(DATA / "cora.npz", allow_pickle=False)
    n, width = graph["shape"]
    words = np.zeros((n, width), np.float32)
    words[np.repeat(np.arange(n), np.diff(graph["indptr"])), graph["indices"]] = 1
    near = np.eye(n, dtype=np.float32)
    near[tuple(graph["edges"].T)] = near[tuple(graph["edges"].T[::-1])] = 1
    once = normalize(near, "l1") @ normalize(words)
    twice = normalize(near, "l1") @ once
    labels = table.sort_values("index").label.to_numpy()
    train, test = (table.sort_values("index").split == part for part in ("train", "test"))
    kinds = {
        "own words": normalize(words),
        "words of neighbours": normalize(once),
        "two hops": normalize(twice),
    }
    for name, x in kinds.items():
        model = LogisticRegressionCV(Cs=np.logspace(-1, 3, 5), cv=3, max_iter=300).fit(
            x[train], labels[train]
        )
        yield f"cora: logistic regression on {name}: accuracy {model.score(x[test], labels[test]):.3f}"
    most = np.bincount(labels[train]).argmax()
    yield f"cora: always the commonest class: accuracy {(labels[test] == most).mean():.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=["chebi20", "webnlg", "cora", []], help="default: all")
    for chosen in parser.parse_args().sets or ["chebi20", "webnlg", "cora"]:
        for line in globals()[chosen]():
            print(line, flush=True)
