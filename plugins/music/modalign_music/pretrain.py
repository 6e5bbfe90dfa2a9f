"""Masked-music pre-training: ``python -m modalign_music.pretrain --table T --column C --out FOLDER``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from modalign import BadSample, Modality, UserError

from .masked import MaskedMusic
from .midi import Midi
from .pretrained import SIZES, save
from .score import Score
from .transformer import BarTransformer, MidiTransformer, PatchTransformer


def pretrain(
    encoder: PatchTransformer,
    modality: Modality,
    train: Sequence[Any],
    held_out: Sequence[Any] = (),
    epochs: int = 30,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """Train an encoder in place; nats per character after each epoch, of ``held_out`` if there is any.

    Inputs:
        modality: what made the items and batches them.
        train, held_out: items.
        lr: of AdamW, falling along a cosine.
    """
    torch.manual_seed(seed)
    model = MaskedMusic(encoder)
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    steps = epochs * math.ceil(len(train) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    generator = torch.Generator().manual_seed(seed)
    history = []
    for epoch in range(epochs):
        model.train()
        losses = []
        for rows in torch.randperm(len(train), generator=generator).split(batch_size):
            batch = modality.augment(modality.collate([train[i] for i in rows]), generator)
            loss = model(batch["patches"], batch["mask"], generator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        value = _measure(model, modality, held_out, batch_size) if held_out else sum(losses) / len(losses)
        history.append(value)
        print(f"epoch {epoch + 1}/{epochs}: {value:.3f} nats per character", file=sys.stderr)
    return history


@torch.no_grad()
def _measure(model: MaskedMusic, modality: Modality, items: Sequence[Any], size: int) -> float:
    model.eval()
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for start in range(0, len(items), size):
        batch = modality.collate(items[start : start + size])
        total += float(model(batch["patches"], batch["mask"], generator)) * len(batch["mask"])
    return total / len(items)


def read_column(path: Path, column: str, split: str | None, modality: Modality) -> dict[str, list[Any]]:
    """The readable items of a Parquet, CSV or JSON-lines table, by split; unreadable ones are left out.

    Raises:
        UserError: if the table or a column is not there.
    """
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    readers = {".csv": csv.read_csv, ".jsonl": json.read_json, ".json": json.read_json}
    try:
        table = readers.get(path.suffix, parquet.read_table)(str(path))
        values = table.column(column).to_pylist()
        splits = table.column(split).to_pylist() if split else ["train"] * len(values)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"cannot read column {column!r} and split {split!r} of {path}: {error}") from None
    items: dict[str, list[Any]] = {}
    for value, name in zip(values, splits, strict=True):
        if isinstance(value, dict):
            value = value.get("bytes") or Path(path.parent, value["path"])
        elif isinstance(value, str) and not modality.literal:
            value = path.parent / value
        try:
            items.setdefault(name, []).append(modality.read(value))
        except BadSample:
            continue
    return items


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m modalign_music.pretrain", description=__doc__)
    parser.add_argument("--table", required=True, type=Path, help="Parquet, CSV or JSON lines")
    parser.add_argument("--column", required=True, help="the column of scores, or of MIDI files")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument("--modality", choices=("score", "midi"), default="score")
    parser.add_argument("--split", help="the column that names the split; without it all is train")
    parser.add_argument("--no-header", action="store_true", help="leave metre and key out, as the plan does")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    for name, default in {"width": 128, "layers": 2, "heads": 4, "ngrams": 4, "buckets": 4096}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="of the encoder")
    given = parser.parse_args(arguments)
    modality = {"score": Score, "midi": Midi}[given.modality](header=not given.no_header, hide=0.0)
    sizes = {name: getattr(given, name) for name in SIZES}
    try:
        torch.manual_seed(given.seed)
        encoder = {"score": BarTransformer, "midi": MidiTransformer}[given.modality](**sizes, dropout=0.1)
        items = read_column(given.table, given.column, given.split, modality)
        if not items.get("train"):
            raise UserError(f"no readable item of split 'train' in {given.table}")
        training = {k: getattr(given, k) for k in ("epochs", "batch_size", "lr", "seed")}
        history = pretrain(encoder, modality, items["train"], items.get("val", []), **training)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    about = {"modality": given.modality, "pieces": len(items["train"]), "nats_per_character": history[-1]}
    save(encoder, given.out, sizes, about)
    print(given.out)


if __name__ == "__main__":
    main()
