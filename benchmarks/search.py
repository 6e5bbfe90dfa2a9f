"""What HNSW and IVF-PQ gain over comparing with all vectors, and what they miss.

python benchmarks/search.py [--items 100000] [--dim 256]

Unit vectors in clusters of about fifty, as embeddings are; a query lies half way between an item and a
direction of its own. Seconds are of one core's CPU, so that other work does not count.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from modalign.search.nearest import KINDS, Nearest

QUERIES, K = 200, 10


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, asked.items // 50), asked.dim))
    own = random.standard_normal((asked.items, asked.dim))
    vectors = unit(own + centres[random.integers(len(centres), size=asked.items)])
    queries = unit(
        vectors[random.integers(asked.items, size=QUERIES)]
        + unit(random.standard_normal((QUERIES, asked.dim)))
    )
    exact: list[set[int]] = []
    print(f"{asked.items} items, {asked.dim} dimensions\nkind   build, s  query, ms  recall@{K}")
    for kind in KINDS:
        start = time.process_time()
        index = Nearest(vectors, kind)
        built = time.process_time()
        found = [{row for _, row in index.search(query[None], K)[0]} for query in queries]
        ms = (time.process_time() - built) * 1000 / QUERIES
        exact = exact or found
        recall = np.mean([len(f & e) / len(e) for f, e in zip(found, exact, strict=True)])
        print(f"{kind:6} {built - start:8.1f} {ms:10.2f} {recall:10.3f}", flush=True)


if __name__ == "__main__":
    main()
