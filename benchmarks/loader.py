"""Samples per second from disk to tensors beside webdataset: ``python benchmarks/loader.py [--quick]``.

Small PNG pictures and captions, in tar shards and in Parquet, are read, decoded, shuffled and put into
batches, two epochs of each. webdataset decodes with the same two functions as ours, and once with its own;
each row is a fresh process. Ours visits every sample once per epoch in an order that a resumed run repeats;
webdataset shuffles within a buffer of 1,000.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measuring import Result, fresh, heading, peak_mb, print_ahead, print_head, print_row

SIZE, BATCH, EPOCHS, SHARDS = 64, 64, 2, 8
TAR, PARQUET = "{00..07}.tar", "shards/*.parquet"


def main() -> None:
    options = arguments()
    if options.one:
        who, workers = options.one
        print(json.dumps(measure(who, int(workers), Path(options.folder))))
        return
    print(heading(1, "webdataset", "pyarrow", "pillow"))
    print(f"\n{options.samples:,} samples, pictures of {SIZE} x {SIZE} pixels, batches of {BATCH}")
    print_head(
        "",
        "workers",
        "opening, s",
        "samples/s, first epoch",
        "× webdataset",
        "later",
        "× webdataset",
        "MB",
        "× webdataset",
    )
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), options.samples)
        peers: dict[str, Result] = {}
        rates: dict[str, dict[str, float]] = {"first": {}, "later": {}}
        for who in WAYS:
            for workers in map(str, options.workers):
                found = fresh(__file__, ["--one", who, workers, "--folder", name], 1)
                if "failed" in found:
                    print_row(who, workers, found["failed"], *[""] * 6)
                    continue
                peer = peers.setdefault(workers, found)
                if who.startswith("modalign"):
                    for key in rates:
                        rates[key][f"{who}, {workers} workers"] = found[key] / peer[key]
                cells = [f"{found['open']:.2f}"]
                for key in ("first", "later", "peak"):
                    cells += [f"{found[key]:.0f}", f"{found[key] / peer[key]:.2f}"]
                print_row(who, workers, *cells)
    print()
    for key, ratios in rates.items():
        print_ahead(f"samples per second of the {key} epoch, of ours over webdataset", ratios, "above")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--samples", type=int, help="default 20,000, or 1,600 with --quick")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader processes")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.samples = options.samples or (1600 if options.quick else 20_000)
    return options


def write(folder: Path, samples: int) -> None:
    """The same samples as eight tar shards, eight Parquet shards and one Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "shards").mkdir()
    made = [sample(i) for i in range(samples)]
    for shard in range(SHARDS):
        mine = made[shard::SHARDS]
        with tarfile.open(folder / f"{shard:02}.tar", "w") as archive:
            for i, (picture, caption) in enumerate(mine):
                for ending, data in (("png", picture), ("txt", caption.encode())):
                    about = tarfile.TarInfo(f"{shard:02}{i:06}.{ending}")
                    about.size = len(data)
                    archive.addfile(about, io.BytesIO(data))
        table = pa.table({"png": [p for p, _ in mine], "txt": [c for _, c in mine]})
        pq.write_table(table, folder / "shards" / f"{shard:02}.parquet", row_group_size=512)
    whole = pa.table({"png": [p for p, _ in made], "txt": [c for _, c in made]})
    pq.write_table(whole, folder / "table.parquet")


def sample(number: int) -> tuple[bytes, str]:
    """A picture of a few soft shapes, and its caption."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(number)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    waves = [np.sin(a * x + b * y + c) for a, b, c in random.uniform(1, 12, (3, 3))]
    pixels = np.stack(waves, -1) * 90 + 128 + random.integers(0, 8, (SIZE, SIZE, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue(), f"a pattern of waves, the {number}th of its kind"


# What is measured ------------------------------------------------------------------------------

Batches = Iterator[int]
"""The number of samples in each batch, whose tensors have been made."""


def kinds() -> tuple[Any, Any]:
    """The two modalities, which decode one sample each."""
    from modalign_image.modality import Image
    from modalign_text.modality import Text

    return Image(size=SIZE), Text()


def ours(table: str, folder: Path, workers: int, epoch: int, state: dict[str, Any]) -> Batches:
    """Our loader as a stage calls it."""
    from modalign.training.loader import read_ahead

    epochs, readers = state["epochs"], state["readers"]
    for loaded in read_ahead(readers, partial(epochs.from_batch, epoch), epoch, 0, workers):
        yield len(loaded["image"].present)


def opened(table: str, folder: Path) -> dict[str, Any]:
    """The dataset, its order and its readers, without a run around them."""
    from modalign.training.data import Dataset
    from modalign.training.data_plan import Data
    from modalign.training.quarantine import Quarantine
    from modalign.training.reader import Reader
    from modalign.training.sampler import Epochs

    modalities = dict(zip(("image", "text"), kinds(), strict=True))

    class Readers:
        """As much of a space as a reader asks for."""

        reader = staticmethod(modalities.__getitem__)

    columns = {"image": "png", "text": "txt"}
    data = Dataset(Data(table=table, columns=columns), folder, list(columns), ["text"])
    usable = data.usable("train", list(columns), 2)
    quarantine = Quarantine(folder / "quarantine.csv")
    return {
        "epochs": Epochs(usable, data.weights, BATCH, 0, orders=data.orders(usable, 0)),
        "readers": {m: Reader(Readers(), m, data, quarantine, seed=0) for m in columns},  # type: ignore[arg-type]
    }


def webdataset(own: bool, folder: Path, workers: int, epoch: int, state: dict[str, Any]) -> Batches:
    """webdataset's pipeline and WebLoader; it decodes pictures itself if ``own``."""
    import torch
    import webdataset as wds

    torch.manual_seed(epoch)
    picture, text = kinds()
    data = wds.WebDataset(str(folder / TAR), shardshuffle=SHARDS, nodesplitter=None, empty_check=False)
    data = data.shuffle(1000)
    if own:
        data = data.decode("torchrgb").to_tuple("png", "txt")
    else:
        data = data.to_tuple("png", "txt").map_tuple(picture.read, text.read)
    data = data.batched(BATCH, collation_fn=partial(collate, picture, text, own))
    for batch in wds.WebLoader(data, num_workers=workers, batch_size=None):
        yield len(batch["pixels"])


def collate(picture: Any, text: Any, own: bool, samples: list[Any]) -> dict[str, Any]:
    """Tensors of a batch, as our readers would make them."""
    import torch

    pictures, texts = zip(*samples, strict=True)
    pixels = {"pixels": torch.stack(pictures)} if own else picture.collate(pictures)
    return {**pixels, **text.collate(texts)}


WAYS: dict[str, partial[Batches]] = {
    "webdataset, our decoding": partial(webdataset, False),
    "webdataset, its own decoding": partial(webdataset, True),
    "modalign, tar shards": partial(ours, TAR),
    "modalign, Parquet shards": partial(ours, PARQUET),
    "modalign, one Parquet table in memory": partial(ours, "table.parquet"),
}


def measure(who: str, workers: int, folder: Path) -> Result:
    """Seconds of importing and opening, and samples per second of the first and of the second epoch."""
    import torch

    torch.set_num_threads(1)
    kinds()
    start = time.perf_counter()
    way = WAYS[who]
    state = (
        opened(way.args[0], folder) if way.func is ours else {"peer": importlib.import_module("webdataset")}
    )
    opening, rates = time.perf_counter() - start, []
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        seen = sum(way(folder, workers, epoch, state))
        rates.append(seen / (time.perf_counter() - start))
    return {"open": opening, "first": rates[0], "later": rates[1], "peak": peak_mb(), "seen": seen}


if __name__ == "__main__":
    main()
