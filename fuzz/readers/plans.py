"""Plans, overrides of plans, and plugin catalogues: YAML."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from ..documents import as_text, changed
from ..mutate import damaged
from ..reader import Bench, Files

PLAN = """name: tiny
seed: 0
data: {table: tiny.parquet, split: split, label: label, columns: {text: text, other: words}}
modalities:
  text: {encoder: {name: char-cnn, width: 16, layers: 1}, trainable: true, augment: {views: 2}}
  other: {encoder: char-cnn, modality: text, read: {max_bytes: 64}}
space: {dim: 16, projection: {name: universal, width: 16, heads: 2}, temperature: 0.07}
stages:
  - {name: one, align: [text, other], losses: {infonce: 1.0}, epochs: 2, batch_size: 4, lr: 1e-3}
tasks:
  - {name: retrieval, from: text, to: other}
  - {name: zero_shot, modality: text, classes: other}
fabric: {accelerator: cpu, devices: 1, precision: 32-true}
track: {uri: null}
"""
SOLVED = """name: solved
modalities: {text: {encoder: char-cnn}, other: {encoder: char-cnn, modality: text}}
space: {dim: 8, projection: mean, alignment: linear}
stages:
- name: &n all
  align: [text, other]
  closed_form: {method: cca, regularisation: 0.1}
  data: {mix: [{table: tiny.parquet, weight: 1}, {tables: {train: tiny.csv}}], columns: {text: text, other: words}}
tasks: [{name: retrieval, from: text, to: other, split: train, id: *n}]
"""
TOKENS = [
    word.encode()
    for word in ["name", "stages", "align", "losses", "closed_form", "data", "table", "tables", "mix", "dataset", "columns", "split", "label", "root", "weight", "window", "stream", "modalities", "encoder", "modality", "read", "trainable", "augment", "views", "space", "dim", "projection", "universal", "mlp", "linear", "mean", "temperature", "learned", "tasks", "retrieval", "zero_shot", "select", "task", "every", "patience", "pairs", "unfreeze", "fabric", "devices", "track", "uri", "plugins", "disable", "infonce", "siglip", "symile", "latent_mix", "bucket_by", "chunk_size", "accumulate", "warmup", "schedule", "clip", "epochs", "batch_size", "lr", "char-cnn", "small-vit", "modalign-text:char-cnn", "tiny.parquet", "tiny.csv"]
] + [
    b": ", b"- ", b"&a ", b"*a", b"*n", b"<<: *n", b"<<", b"? ", b"!!", b"!!binary ", b"!!set ", b"!!omap ", b"!!timestamp ", b"!!int ", b"!!float ",
    b"!!python/object/apply:os.system ['touch owned']", b"!!python/name:os.system", b"!!python/object/new:type [x]", b"%YAML 9.9\n", b"---\n", b"...\n", b"|\n",
    b">-\n", b"# ", b"@", b"`", b"0x_", b"0b", b"1:60:60", b"2001-99-99", b"=", b"~", b".inf", b".nan", b"{", b"}", b"[", b"]", b",", b"\n  ", b"\xc2\x85",
]  # fmt: skip
WORDS = [t.decode() for t in TOKENS if t.isascii()]


def _tables(scratch: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    rows = [
        {"text": f"a {i}", "words": f"b {i}", "label": i % 2, "split": ("train", "val", "test")[i % 3]}
        for i in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(rows), scratch / "tiny.parquet")
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), scratch / "tiny.csv")


def plan(scratch: Path) -> Bench:
    """A plan file, read and checked against a table; nothing is trained."""
    from modalign import UserError
    from modalign.training.checks import prepare
    from modalign.training.plan_file import read_plan

    _tables(scratch)
    whole = [PLAN, SOLVED]
    trees = [yaml.safe_load(text) for text in whole]
    file = scratch / "plan.yaml"

    def read(files: Files, folder: Path) -> Any:
        file.write_bytes(files["plan.yaml"])
        return prepare(read_plan(file))

    def edit(files: Files, draw: random.Random) -> Files:
        return {
            "plan.yaml": as_text(changed(draw.choice(trees), WORDS, draw), draw).encode(
                errors="surrogatepass"
            )
        }

    seeds = [{"plan.yaml": text.encode()} for text in whole]
    return Bench(seeds, read, (UserError,), TOKENS, edit)


def overrides(scratch: Path) -> Bench:
    """``key.path=value`` on a plan that is right, and the combinations of a sweep."""
    from modalign import UserError
    from modalign.training.plan_file import read_plan
    from modalign.training.plan_form import validate
    from modalign.training.sweep import combinations

    _tables(scratch)
    tree = yaml.safe_load(PLAN)
    seeds = [
        {"override": text.encode()}
        for text in (
            "seed=1",
            "stages.0.epochs=5",
            "stages.one.lr=1e-3,1e-4",
            "space.projection={name: mean}",
            "tasks.0.id='a,b'",
            "modalities.text.encoder.width=16",
            "data.columns.text=[a, {b: c}]",
            "track.uri=null",
        )
    ]

    def read(files: Files, folder: Path) -> Any:
        texts = files["override"].decode("utf-8", "surrogateescape").split("\0")
        for values in combinations(texts)[:4]:
            source = read_plan(tree, values)
            form, problems = validate(source)
            if form is None:
                raise source.error(problems)

    def edit(files: Files, draw: random.Random) -> Files:
        keys = [
            draw.choice([*WORDS, "0", "1", "-1", "999999999999999999999", "", "one", "é", "²"])
            for _ in range(draw.randrange(1, 6))
        ]
        value = as_text(changed({"a": draw.choice([1, [1, 2], {"name": "mean"}])}, WORDS, draw), draw)
        return {"override": f"{'.'.join(keys)}={value}".encode(errors="surrogatepass")}

    tokens = [*TOKENS, b"=", b",", b".", b".0", b"stages.0.", b"\0seed=", b'"', b"'"]
    return Bench(seeds, read, (UserError,), tokens, edit)


def registry(scratch: Path) -> Bench:
    """``registry.yaml``, the catalogue of plugins."""
    from modalign import UserError
    from modalign.plugin.registry import entries

    own = Path(__file__).parents[2] / "registry.yaml"
    short = {
        "schema": 1,
        "plugins": {
            "modalign-a": {"summary": "A.", "trust": "core", "source": "plugins/a", "provides": {"encoders": ["x", "y"]}, "needs": ["torch"]},
            "modalign-b": {"summary": "B.", "trust": "reviewed", "requirement": "modalign-b>=1,<2", "version": "1.0",
                           "sha256": "0" * 64, "homepage": "https://example.org/b"},
            "modalign-c": {"summary": "C.", "trust": "listed", "requirement": "modalign-c"},
        },
    }  # fmt: skip
    seeds = [
        {"registry.yaml": yaml.safe_dump(short, sort_keys=False).encode()},
        {"registry.yaml": own.read_bytes()[:3000].rpartition(b"\n  modalign")[0] + b"\n"},
    ]
    file = scratch / "registry.yaml"
    words = [
        *WORDS,
        *[
            "schema",
            "plugins",
            "summary",
            "trust",
            "core",
            "reviewed",
            "listed",
            "source",
            "requirement",
            "provides",
            "needs",
            "version",
            "sha256",
            "homepage",
            "https://x",
            "modalign-a",
            "@",
            ";",
            "[]",
        ],
    ]

    def read(files: Files, folder: Path) -> Any:
        file.write_bytes(files["registry.yaml"])
        return entries(file)

    def edit(files: Files, draw: random.Random) -> Files:
        return {"registry.yaml": as_text(changed(short, words, draw), draw).encode(errors="surrogatepass")}

    return Bench(seeds, read, (UserError,), [word.encode() for word in words], edit)


__all__ = ["damaged", "json", "overrides", "plan", "registry"]
