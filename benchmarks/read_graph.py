"""Items per second of the graph readers, beside the bare library call.

python benchmarks/read_graph.py [--n 500]       # MODALIGN_DATA: the folder of the data, else made-up items
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rdflib
from modalign_graph.knowledge_graph import KnowledgeGraph
from modalign_graph.molecule import Molecule
from modalign_graph.node import Node
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator

DATA = Path(os.environ.get("MODALIGN_DATA", "../shared/data"))
Row = tuple[str, Callable[[Any], Any], Callable[[Any], Any], Sequence[Any]]


def molecules(n: int) -> Iterator[Row]:
    """Parsing alone, parsing and one fingerprint, beside RDKit."""
    if (DATA / "chebi20.parquet").is_file():
        import pandas

        smiles = pandas.read_parquet(DATA / "chebi20.parquet").smiles[:n].tolist()
    else:
        smiles = [item.smiles for item in Molecule().example(n)]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048, includeChirality=True)

    def counted(value: str) -> np.ndarray:
        found: np.ndarray = morgan.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(value))
        return found

    blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(s)) for s in smiles]
    kinds = ["morgan", "maccs", "groups", "totals"]
    yield "molecule: atoms and bonds", Molecule().read, Chem.MolFromSmiles, smiles
    yield "molecule: mol block", Molecule().read, Chem.MolFromMolBlock, blocks
    yield "molecule: morgan", Molecule(graph=False, fingerprints=["morgan"]).read, counted, smiles
    yield "molecule: all of fingerprint's", Molecule(graph=False, fingerprints=kinds).read, counted, smiles


def triples(n: int) -> Iterator[Row]:
    """JSON and Turtle, beside json and rdflib."""
    rows = [[list(t) for t in item.triples] for item in KnowledgeGraph().example(n)]
    turtle = []
    for graph in rows:
        made = rdflib.Graph()
        for s, p, o in graph:
            names = (rdflib.URIRef("http://example.org/" + part.replace(" ", "_")) for part in (s, p, o))
            made.add(tuple(names))  # type: ignore[arg-type]
        turtle.append(made.serialize(format="turtle"))
    read = KnowledgeGraph().read
    yield "knowledge-graph: JSON", read, json.loads, [json.dumps(graph) for graph in rows]
    yield (
        "knowledge-graph: Turtle",
        read,
        lambda text: rdflib.Graph().parse(data=text, format="turtle"),
        turtle,
    )


def nodes(n: int, folder: Path) -> Iterator[Row]:
    """Sampling two hops in a random graph of 20,000 nodes, beside networkx' search to that depth."""
    import networkx

    draw = np.random.default_rng(0)
    edges = draw.integers(0, 20_000, (60_000, 2))
    np.savez(folder / "random.npz", features=draw.random((20_000, 50)) < 0.2, edges=edges)
    node = Node(str(folder / "random.npz"))
    node.read(0)
    graph = networkx.Graph(edges.tolist())
    bare = lambda v: networkx.ego_graph(graph, v, 2) if v in graph else None  # noqa: E731
    yield "node: 10 and 10 neighbours", node.read, bare, draw.integers(0, 20_000, n).tolist()


def rate(call: Callable[[Any], Any], values: Sequence[Any]) -> float:
    """Calls per second, the best of three rounds."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        for value in values:
            call(value)
        best = min(best, time.perf_counter() - begun)
    return len(values) / best


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    n = parser.parse_args().n
    print(f"{'reader':32} {'ours /s':>10} {'bare /s':>10} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder, rdBase.BlockLogs():
        for name, ours, bare, values in (*molecules(n), *triples(n), *nodes(n, Path(folder))):
            a, b = rate(ours, values), rate(bare, values)
            print(f"{name:32} {a:10.0f} {b:10.0f} {a / b:7.2f}", flush=True)


if __name__ == "__main__":
    main()
