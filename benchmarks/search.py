"""What HNSW and IVF-PQ gain over comparing with all vectors, and what they miss.

python benchmarks/search.py [--quick] [--items 100000] [--dim 256]

Unit vectors in clusters of about fifty, as embeddings are; a query lies half way between an item and a
direction of its own. Seconds are of one core's CPU, so that other work does not count.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from measuring import heading, print_head, print_row
from modalign.search.nearest import KINDS, Nearest

QUERIES, K = 200, 10


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="5,000 items")
    parser.add_argument("--items", type=int, help="default 100,000")
    parser.add_argument("--dim", type=int, default=256)
    asked = parser.parse_args()
    asked.items = asked.items or (5_000 if asked.quick else 100_000)
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, asked.items // 50), asked.dim))
    own = random.standard_normal((asked.items, asked.dim))
    vectors = unit(own + centres[random.integers(len(centres), size=asked.items)])
    queries = unit(
        vectors[random.integers(asked.items, size=QUERIES)]
        + unit(random.standard_normal((QUERIES, asked.dim)))
    )
    exact: list[set[int]] = []
    flat = 0.0
    print(f"{heading(1, 'faiss-cpu')}\n\n{asked.items:,} items, {asked.dim} dimensions")
    print_head("kind", "build, s", "query, ms", "flat takes ×", f"recall@{K}")
    for kind in KINDS:
        start = time.process_time()
        index = Nearest(vectors, kind)
        built = time.process_time()
        found = [{row for _, row in index.search(query[None], K)[0]} for query in queries]
        ms = (time.process_time() - built) * 1000 / QUERIES
        exact = exact or found
        flat = flat or ms
        recall = np.mean([len(f & e) / len(e) for f, e in zip(found, exact, strict=True)])
        print_row(kind, f"{built - start:.1f}", f"{ms:.2f}", f"{flat / ms:.1f}", f"{recall:.3f}")


if __name__ == "__main__":
    main()
