"""Closed form beside trained InfoNCE on two frozen feature sets: ``python benchmarks/closed_form.py``.

Two views (256 and 128 wide) of a shared 32-dimensional latent and noise of their own; one quarter of
the rows, at most 2,000, is for testing. Trained: linear maps into 64 dimensions, three epochs of
batches of 128, at the learning rate of several that finds most; that is the peer. Every line is a
stage of ``modalign.align`` on cached features: seconds of the stage alone, and R@1 averaged over
both directions. Cold and warm starts train for the same epochs, into 128 dimensions; with few rows
the mean of three seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

PLUGIN = '''
import hashlib
import numpy as np
import torch
from modalign import Component, Encoder, Features, Modality, hookimpl

class Row(Modality):
    """A row's number."""
    name, literal = "row", True
    def read(self, value): return int(value)
    def collate(self, items): return {"rows": torch.tensor(items)}
    def example(self, n, seed=0): return list(range(n))

class View(Encoder):
    """A row of a file of vectors."""
    modality, pretrained = "row", True
    def __init__(self, file):
        super().__init__()
        self.vectors = np.load(file, mmap_mode="r")
        self.width, self.file = self.vectors.shape[1], file
    def forward(self, batch):
        return Features.from_vectors(torch.from_numpy(np.asarray(self.vectors[batch["rows"].numpy()])))
    def fingerprint(self):
        return hashlib.blake2b(f"{self.file} {self.vectors.shape}".encode()).hexdigest()

@hookimpl
def register_modalities(): return [Component("row", "w1_views:Row", "a row's number")]
@hookimpl
def register_encoders(): return [Component("view", "w1_views:View", "a row of a file of vectors")]
'''
METADATA = "Metadata-Version: 2.1\nName: w1-views\nVersion: 1.0\nRequires-Dist: modalign>=0.1\n"


def write_plugin(folder: Path) -> None:
    """A plugin, as installed, that reads vectors from a file."""
    (folder / "w1_views.py").write_text(PLUGIN)
    info = folder / "w1_views-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[modalign.plugins]\nw1-views = w1_views\n")
    sys.path.insert(0, str(folder))


def write_views(rows: int, noise: float) -> None:
    """``a.npy``, ``b.npy`` and the table that pairs them."""
    random = np.random.default_rng(0)
    latent = random.standard_normal((rows, 32), dtype=np.float32)
    for name, width in (("a", 256), ("b", 128)):
        seen = latent @ random.standard_normal((32, width), dtype=np.float32) / 32**0.5
        np.save(f"{name}.npy", seen + noise * random.standard_normal((rows, width), dtype=np.float32))
    split = ["test" if i % 4 == 3 and i < 8000 else "train" for i in range(rows)]
    numbers = pa.array(range(rows), pa.int64())
    pq.write_table(pa.table({"a": numbers, "b": numbers, "split": split}), "views.parquet")


def run(name: str, dim: int, *stages: dict[str, Any], seed: int = 0) -> tuple[float, float]:
    """Seconds of all stages, and R@1 of both directions."""
    import modalign

    plan = {
        "name": name,
        "seed": seed,
        "data": {"table": "views.parquet", "split": "split"},
        "modalities": {m: {"encoder": {"name": "view", "file": f"{m}.npy"}} for m in "ab"},
        "space": {"dim": dim, "alignment": "linear", "projection": "mean", "dropout": 0.0},
        "stages": [{"name": f"s{i}", "align": ["b", "a"], **stage} for i, stage in enumerate(stages)],
        "tasks": [
            {"name": "retrieval", "from": "a", "to": "b"},
            {"name": "retrieval", "from": "b", "to": "a"},
        ],
        "track": {"uri": None},
    }
    modalign.align(plan)
    report = json.loads(Path("runs", name, "report.json").read_text())
    recall = [metrics["R@1"] for metrics in report["tasks"].values()]
    return sum(s["seconds"] for s in report["stages"]), sum(recall) / len(recall)


def trained(lr: float, epochs: int = 3, **more: Any) -> dict[str, Any]:
    return {"losses": {"infonce": 1.0}, "epochs": epochs, "batch_size": 128, "lr": lr, **more}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2,000 rows only")
    parser.add_argument("--rows", type=int, nargs="+", help="default 2,000 and 200,000")
    parser.add_argument("--noise", type=float, default=1.0, help="standard deviation beside the signal's 1")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, load {os.getloadavg()[0]:.1f} at the start")
    for rows in options.rows or ([2_000] if options.quick else [2_000, 200_000]):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            os.environ["MODALIGN_CACHE"] = str(Path(folder, "cache"))
            if "w1_views" not in sys.modules:
                write_plugin(Path(tempfile.mkdtemp()))
            write_views(rows, options.noise)
            run("warm-up", 128, {"closed_form": "ridge"})  # fills the feature cache
            print(f"\n{rows:,} rows, noise {options.noise:g}\n\n| | seconds | R@1 | × faster than trained |")
            print("|---|---|---|---|")
            tried = {lr: run(f"trained-{int(1e4 * lr)}", 64, trained(lr)) for lr in (1e-3, 3e-3, 1e-2)}
            best = max(tried, key=lambda lr: tried[lr][1])
            peer = tried[best][0]
            print(f"| InfoNCE, lr {best:g} | {peer:.3f} | {tried[best][1]:.3f} | |", flush=True)
            for method, dim in (("ridge", 128), ("procrustes", 256), ("cca", 32), ("csa", 64)):
                seconds, recall = run(method, dim, {"closed_form": method})
                print(
                    f"| {method}, dim {dim} | {seconds:.3f} | {recall:.3f} | {peer / seconds:.1f} |",
                    flush=True,
                )
            print("\n| epochs | cold | warm: ridge first | warm: csa first |\n|---|---|---|---|")
            for epochs in (1, 3):
                again = trained(best, epochs, unfreeze=["a", "b"])
                starts = {"cold": [], "ridge": [{"closed_form": "ridge"}], "csa": [{"closed_form": "csa"}]}
                recall = {
                    name: [
                        run(
                            f"{name}-{epochs}-{seed}",
                            128,
                            *first,
                            again if first else trained(best, epochs),
                            seed=seed,
                        )[1]
                        for seed in range(3 if rows < 10_000 else 1)
                    ]
                    for name, first in starts.items()
                }
                means = " | ".join(f"{sum(r) / len(r):.3f}" for r in recall.values())
                print(f"| {epochs} | {means} |", flush=True)
            os.chdir("/")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
