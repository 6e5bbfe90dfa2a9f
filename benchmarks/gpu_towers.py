"""Samples per second and memory of whole towers beside open_clip: ``python benchmarks/gpu_towers.py``.

A ViT-B/16 and a text tower of MiniLM's size (6 layers, width 384), both from their configuration with random
weights, and a linear map of each into 512 dimensions; InfoNCE. Trained whole, and with frozen towers: ours then
also with features that were encoded once, before the first step, which open_clip does not keep. bf16 on a GPU, float32 without. ``--quick`` (or
``--tiny``) runs the same on small towers on a CPU, to see that it runs. open_clip trains by its own
``train_one_epoch`` on tensors in memory, in the environment of ``make peers``; ours by ``modalign.align``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from align_peers import PEERS
from measuring import Result, fresh, heading, peak_mb, print_head, print_row

EPOCHS = 3
"""The first one warms up."""


def main() -> None:
    options = arguments()
    if options.one:
        print(json.dumps({"peak": 0.0, **WAYS[options.one](options, Path(options.folder))}))
        return
    print(f"{heading(options.threads, 'transformers')}; {device()}")
    size = "small towers" if options.tiny else "ViT-B/16 and a text tower of MiniLM's size"
    print(f"\n{size}, batches of {options.batch}")
    print_head("", "samples/s", "× ours, trained", "MB", "× ours, trained")
    first: Result = {}
    with tempfile.TemporaryDirectory() as name:
        for who in WAYS:
            python = options.peers_python if "open_clip" in who else None
            if python is not None and not Path(python).is_file():
                print_row(who, "not installed: `make peers`", *[""] * 3)
                continue
            given = [
                "--one",
                who,
                "--folder",
                name,
                "--batch",
                str(options.batch),
                "--samples",
                str(options.samples),
            ]
            given += ["--threads", str(options.threads), *["--tiny"] * options.tiny]
            found = fresh(__file__, given, options.threads, **({"python": python} if python else {}))
            if "failed" in found:
                print_row(who, found["failed"], *[""] * 3)
                continue
            first = first or found
            cells = [
                cell
                for key in ("rate", "peak")
                for cell in (f"{found[key]:.0f}", f"{found[key] / first[key]:.2f}")
            ]
            print_row(who, *cells)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", "--quick", action="store_true", help="small towers, a few seconds on a CPU")
    parser.add_argument("--batch", type=int, help="default 256, or 16 with --tiny")
    parser.add_argument("--samples", type=int, help="per epoch; default ten batches")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--peers-python", default=os.environ.get("PEERS_PYTHON") or str(PEERS), metavar="FILE"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch = options.batch or (16 if options.tiny else 256)
    options.samples = options.samples or (4 if options.tiny else 10) * options.batch
    return options


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def shape(tiny: bool) -> Namespace:
    """Sizes of both towers."""
    if tiny:
        return Namespace(
            side=32, patch=16, layers=2, width=64, heads=2, text_layers=1, text_width=32, text_heads=2
        )
    return Namespace(
        side=224, patch=16, layers=12, width=768, heads=12, text_layers=6, text_width=384, text_heads=12
    )


DIM, WORDS, TOKENS = 512, 1000, 32


# Ours ------------------------------------------------------------------------------------------


def ours(options: argparse.Namespace, folder: Path, *, train: bool, cache: bool = False) -> Result:
    """``modalign.align``; decoded pictures stay in memory after the first epoch."""
    import modalign
    import torch

    os.environ["MODALIGN_CACHE"] = str(folder / "cache")
    if not (folder / "pairs.parquet").is_file():
        write_towers(shape(options.tiny), folder)
        write_pairs(options.samples, shape(options.tiny).side, folder)
    cuda = torch.cuda.is_available()
    tower = {"weights": False, "trainable": train}
    stage = {"name": "s", "align": ["image", "text"], "losses": {"infonce": 1.0}, "epochs": EPOCHS}
    out = folder / f"run-{time.time_ns()}"
    modalign.align(
        {
            "name": "towers",
            "data": {"table": str(folder / "pairs.parquet")},
            "modalities": {
                "image": encoder("hf-image", folder / "vit", tower),
                "text": encoder("hf-text", folder / "bert", tower),
            },
            "space": {"dim": DIM, "alignment": "linear", "projection": "mean", "dropout": 0.0},
            "stages": [{**stage, "batch_size": options.batch, "lr": 1e-4}],
            "fabric": {"precision": "bf16-mixed" if cuda else "32-true"},
            "cache": cache,
            "track": {"uri": None},
        },
        out=out,
    )
    lines = [json.loads(line)["metrics"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [m["samples_per_second"] for m in lines if "samples_per_second" in m]
    return {"rate": statistics.median(rates[len(rates) // EPOCHS :]), "peak": memory(cuda)}


def encoder(name: str, model: Path, tower: dict[str, Any]) -> dict[str, Any]:
    trainable = tower["trainable"]
    return {
        "encoder": {"name": name, "model": str(model), "weights": tower["weights"]},
        "trainable": trainable,
    }


def write_towers(size: Namespace, folder: Path) -> None:
    """A ViT's and a BERT's configuration, and a tokenizer of so many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, PreTrainedTokenizerFast, ViTConfig, ViTImageProcessor

    ViTConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=4 * size.width, image_size=size.side, patch_size=size.patch, architectures=["ViTModel"],
    ).save_pretrained(folder / "vit")  # fmt: skip
    about = {
        "size": {"height": size.side, "width": size.side},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    try:
        ViTImageProcessor(**about).save_pretrained(folder / "vit")
    except ImportError:  # it wants torchvision, and only its settings are read
        text = json.dumps({"image_processor_type": "ViTImageProcessor", **about})
        (folder / "vit" / "preprocessor_config.json").write_text(text)
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    )
    fast.save_pretrained(folder / "bert")
    BertConfig(
        vocab_size=len(words), hidden_size=size.text_width, num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads, intermediate_size=4 * size.text_width, architectures=["BertModel"],
    ).save_pretrained(folder / "bert")  # fmt: skip


def write_pairs(samples: int, side: int, folder: Path) -> None:
    """Pictures of noise and captions of as many words as the peer's have tokens."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    random = np.random.default_rng(0)

    def png() -> bytes:
        file = io.BytesIO()
        low = random.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(low).resize((side, side)).save(file, "PNG")
        return file.getvalue()

    captions = [" ".join(f"w{i}" for i in random.integers(0, WORDS, TOKENS)) for _ in range(samples)]
    pq.write_table(pa.table({"image": [png() for _ in captions], "text": captions}), folder / "pairs.parquet")


def memory(cuda: bool) -> float:
    """MB at the peak: of the GPU, or of the process."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_mb()


# The peer --------------------------------------------------------------------------------------


def open_clip(options: argparse.Namespace, folder: Path, *, train: bool) -> Result:
    """open_clip's model of the same shape in its own loop; frozen: all but both projections."""
    import torch
    from open_clip import ClipLoss
    from open_clip.model import CLIP
    from open_clip_train.train import train_one_epoch
    from torch.utils.data import DataLoader, TensorDataset

    size, cuda = shape(options.tiny), torch.cuda.is_available()
    vision = {"image_size": size.side, "patch_size": size.patch, "layers": size.layers, "width": size.width}
    text = {"context_length": TOKENS, "vocab_size": WORDS + 2, "layers": size.text_layers}
    model = CLIP(
        DIM,
        {**vision, "head_width": size.width // size.heads},
        {**text, "width": size.text_width, "heads": size.text_heads},
        output_dict=True,
    ).to("cuda" if cuda else "cpu")
    if not train:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in ("visual.proj", "text_projection", "logit_scale"))
    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moved, lr=1e-4, weight_decay=1e-3)
    pictures = torch.rand(options.samples, 3, size.side, size.side)
    words = torch.randint(2, WORDS, (options.samples, TOKENS))
    loader = DataLoader(TensorDataset(pictures, words), options.batch, shuffle=True, pin_memory=cuda)
    loader.num_batches, loader.num_samples = len(loader), options.samples  # type: ignore[attr-defined]
    data = {"train": Namespace(dataloader=loader, set_epoch=lambda epoch: None)}
    given = Namespace(
        device="cuda" if cuda else "cpu", precision="amp_bf16" if cuda else "fp32", distill=False, accum_freq=1,
        skip_scheduler=True, horovod=False, grad_clip_norm=1.0, rank=0, local_rank=0, world_size=1,
        batch_size=options.batch, log_every_n_steps=100, wandb=False, log_local=False,
    )  # fmt: skip
    rates = []
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        train_one_epoch(model, data, ClipLoss(), epoch, optimizer, None, None, None, given)
        rates.append(options.samples / (time.perf_counter() - start))
    return {"rate": statistics.median(rates[1:]), "peak": memory(cuda)}


WAYS = {
    "modalign, trained": partial(ours, train=True),
    "open_clip, trained": partial(open_clip, train=True),
    "modalign, frozen": partial(ours, train=False),
    "modalign, frozen, cached": partial(ours, train=False, cache=True),
    "open_clip, frozen": partial(open_clip, train=False),
}


if __name__ == "__main__":
    main()
