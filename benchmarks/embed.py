"""What `modalign embed` costs over a bare loop over encoder and projection, and what workers gain.

python benchmarks/embed.py [--quick] [--rows 4000] [--size 64] [--ray]

Pictures made here, a small vision transformer, an untrained space. Rows per second from the first row to the last, each
worker's start and loading left out, as ratios to the bare loop (one process, reading and encoding in turn);
seconds of the whole command beside them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measuring import heading, print_head, print_row
from modalign.space import Space, SpaceModality, inference
from modalign.space_files import load
from modalign.spec import Spec

RUN = "import sys; from modalign.cli.main import main; sys.exit(main())"
BATCH = 64


def make_space(folder: Path, size: int) -> None:
    """An untrained space of pictures."""
    from modalign_image.small_vit import SmallViT

    torch.manual_seed(0)
    space = Space(128, Spec.of({"name": "universal", "width": 128, "heads": 4}))
    arguments = {"size": size, "patch": 8}
    encoder = SmallViT(**arguments)
    entry = SpaceModality(
        modality=Spec.of({"name": "modalign-image:image", "size": size}),
        encoder=Spec.of({"name": "modalign-image:small-vit", **arguments}),
        width=encoder.width,
        carried=True,
    )
    space.add("image", entry, encoder, founder=True)
    space.save(folder)


def make_table(path: Path, rows: int, size: int) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    pictures = []
    for _ in range(rows):
        file = io.BytesIO()
        low = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(low).resize((2 * size, 2 * size)).save(file, "PNG")
        pictures.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"image": pictures}), path, row_group_size=1000)


def bare(folder: Path, table: Path, cores: int) -> float:
    """Rows per second of the loop that anybody would write."""
    torch.set_num_threads(cores)
    space = load(folder)
    reader, encoder = space.reader("image"), space.encoder("image")
    cells = [cell["bytes"] for cell in pq.read_table(table)["image"].to_pylist()]
    began = time.perf_counter()
    with inference(space):
        for start in range(0, len(cells), BATCH):
            batch = reader.collate([reader.read(cell) for cell in cells[start : start + BATCH]])
            space.project("image", encoder(batch)).vectors.numpy()
    return len(cells) / (time.perf_counter() - began)


def command(folder: Path, table: Path, out: Path, part_rows: int, *more: str) -> tuple[float, float]:
    """Rows per second of all workers together, and seconds of the whole command."""
    words = ["embed", str(folder), "image", "--table", str(table), "--out", str(out), "--quiet"]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", RUN, *words, "--part-rows", str(part_rows), "--batch-size", str(BATCH), *more],
        check=True,
    )
    seconds = time.perf_counter() - began
    cost = json.loads(pq.read_schema(out).metadata[b"modalign"])["cost"]
    return cost["rows_per_second_per_worker"] * cost["workers"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="800 rows")
    parser.add_argument("--rows", type=int, help="default 4,000")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--ray", action="store_true", help="a local Ray cluster too")
    asked = parser.parse_args()
    asked.rows = asked.rows or (800 if asked.quick else 4000)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder, table, out = (Path(temporary, name) for name in ("space", "t.parquet", "a.parquet"))
        make_space(folder, asked.size)
        make_table(table, asked.rows, asked.size)
        part_rows = max(BATCH, asked.rows // 16)
        plain = bare(folder, table, cores)
        ways = {"1 worker": ["--workers", "1"], "2 workers": ["--workers", "2"]}
        if asked.ray:
            ways["ray"] = ["--engine", "ray"]
        print(f"{heading(cores)}\n\n{asked.rows:,} pictures")
        print_head("", "rows/s", "× bare loop", "command, s")
        print_row("bare loop", f"{plain:.0f}", "1.00", "")
        for name, more in ways.items():
            speed, seconds = command(folder, table, out, part_rows, *more)
            print_row(name, f"{speed:.0f}", f"{speed / plain:.2f}", f"{seconds:.1f}")


if __name__ == "__main__":
    main()
