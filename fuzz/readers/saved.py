"""What modalign itself has written: spaces, checkpoints, cached features, indexes."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..documents import as_json, changed
from ..reader import Bench, Files

TENSORS = [
    b'"F32"',
    b'"I64"',
    b'"BF16"',
    b'"shape":[',
    b'"data_offsets":[',
    b"__metadata__",
    b"[0,0]",
    b"18446744073709551615",
    b'"dtype":',
    b"\0" * 8,
]


def _space(folder: Path) -> Files:
    """A folder as small as spaces are: one referenced encoder, one that travels along."""
    import torch
    from modalign.space import Space, SpaceModality
    from modalign.spec import Spec

    torch.manual_seed(0)
    space = Space(8, Spec("linear"))
    from modalign_text.char_cnn import CharCNN

    arguments = {"width": 8, "layers": 1}
    for name in ("text", "other"):
        carried = name == "text"
        entry = SpaceModality(
            Spec("modalign-text:text"),
            Spec("modalign-text:char-cnn", arguments),
            8,
            carried,
            None if carried else "x",
        )
        space.add(name, entry, CharCNN(**arguments) if carried else None, founder=carried)
    space.stages, space.plan = [{"name": "one", "align": ["text"], "trained": ["text"]}], {"name": "tiny"}
    space.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _load(scratch: Path) -> Any:
    from modalign.space_files import load

    folder = scratch / "space"

    def read(files: Files, _: Path) -> None:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        load(str(folder))

    return read


def space_config(scratch: Path) -> Bench:
    """A space's ``config.json`` and model card."""
    from modalign import UserError
    from modalign.plugin import loader

    for kind in ("modalities", "encoders", "projections"):  # a config may name any of them
        for offer in loader.components(kind):
            with suppress(UserError):
                loader.load(kind, offer.full_name)
    whole = _space(scratch / "space")
    tree = json.loads(whole["config.json"])
    words = [
        *tree,
        "name",
        "modality",
        "encoder",
        "width",
        "founder",
        "carried",
        "extras",
        "fingerprint",
        "modalign-text:text",
        "char-cnn",
        "mean",
        "universal",
    ]

    def edit(files: Files, draw: random.Random) -> Files:
        return {
            **files,
            "config.json": as_json(changed(tree, words, draw)),
        }

    return Bench(
        [whole],
        _load(scratch),
        (UserError,),
        [f'"{w}"'.encode() for w in words],
        edit,
        fixed=frozenset({"model.safetensors"}),
    )


def space_weights(scratch: Path) -> Bench:
    """A space's ``model.safetensors``."""
    from modalign import UserError

    whole = _space(scratch / "space")
    return Bench(
        [whole], _load(scratch), (UserError,), TENSORS, fixed=frozenset({"config.json", "README.md"})
    )


def checkpoint(scratch: Path) -> Bench:
    """A run's checkpoint; most have the checksum of what they hold, as a stranger's would."""
    import torch
    from modalign.training.checkpoint import latest_checkpoint, read_checkpoint, save_checkpoint

    state = {
        "stage": 1,
        "lr": 0.5,
        "name": "é",
        "weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)},
        "rng": [1, 2],
        "none": None,
    }
    folder = scratch / "checkpoints"
    path = save_checkpoint(folder, 1, state, 2)
    whole = path.read_bytes()

    def read(files: Files, _: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path.write_bytes(files["checkpoint"])
        try:
            read_checkpoint(path)
        finally:
            found = latest_checkpoint(folder)
            assert found is None or isinstance(found, dict)

    def finish(files: Files) -> Files:
        payload = files["checkpoint"].partition(b"\n")[2]
        head = json.dumps({"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
        return {"checkpoint": head.encode() + b"\n" + payload}

    def edit(files: Files, draw: random.Random) -> Files:
        """Other opcodes in the pickle inside the archive, which keeps its own checksums right."""
        import io
        import zipfile

        from ..mutate import damaged

        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole.partition(b"\n")[2])) as old, zipfile.ZipFile(out, "w") as new:
            for info in old.infolist():
                data = old.read(info)
                hit = info.filename.endswith("data.pkl") or draw.random() < 0.1
                new.writestr(info.filename, damaged(data, data, PICKLE, draw) if hit else data)
        return {"checkpoint": b"\n" + out.getvalue()}

    return Bench([{"checkpoint": whole}], read, (ValueError,), PICKLE, edit, finish)


PICKLE = [b"cos\nsystem\n(S'touch owned'\ntR.", b"c__builtin__\neval\n", b"ctorch\nload\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"R", b"}",
          b"]", b"(", b"t", b"u.", b"Q", b"h\x00", b"j\xff\xff\xff\xff", b"X\x04\x00\x00\x00null", b"\x8a\x08" + b"\xff" * 8, b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"G" + b"\x7f\xf8" * 4,
          b"b", b"0", b".", b"2", b"ctorch\nFloatStorage\n", b"X\x00\x00\x00\x80", b"PK\x01\x02", b"PK\x05\x06", b"ctorch\nstorage\n"]  # fmt: skip


def feature_cache(scratch: Path) -> Bench:
    """Shards of cached features: what is damaged must be absent, never another value."""
    import numpy as np
    import torch
    from modalign.training.feature_cache import RECORD, FeatureCache, cache_report

    keys = [bytes([i]) * 16 for i in range(6)]
    values = {
        key: torch.randn(1 + i, 4, generator=torch.Generator().manual_seed(i)) for i, key in enumerate(keys)
    }
    first = FeatureCache("x", {"encoder": "e"}, scratch)
    first.put(values)
    folder = scratch / "x"
    index, shard = next(folder.glob("*.idx")), next(folder.glob("*.bin"))
    signed = [False]

    def read(files: Files, _: Path) -> None:
        index.write_bytes(files["idx"])
        shard.write_bytes(files["bin"])
        (folder / "about.json").write_bytes(files["json"])
        cache = FeatureCache("x", folder=scratch)
        for key in [*keys, *list(cache._entries)[:20]]:
            found = cache.get(key)
            _ = key in cache, len(cache)
            if found is not None and key in values and not signed[0]:
                assert np.array_equal(found, values[key].numpy()), "a damaged entry was read"
        cache_report()

    def finish(files: Files) -> Files:
        """Half of them with records whose own checksum is right, whatever they say."""
        signed[0] = zlib.crc32(files["idx"]) % 2 == 0
        if not signed[0]:
            return files
        records = [
            files["idx"][i : i + RECORD.size]
            for i in range(0, len(files["idx"]) - RECORD.size + 1, RECORD.size)
        ]
        return {**files, "idx": b"".join(r[:-4] + struct.pack("<I", zlib.crc32(r[:-4])) for r in records)}

    def guarded(files: Files, folder_: Path) -> None:
        whole = all(
            files["idx"][i : i + RECORD.size] in original
            for i in range(0, len(files["idx"]) - RECORD.size + 1, RECORD.size)
        )
        signed[0] = not whole
        read(files, folder_)

    original = {index.read_bytes()[i : i + RECORD.size] for i in range(0, 6 * RECORD.size, RECORD.size)}
    seeds = [
        {"idx": index.read_bytes(), "bin": shard.read_bytes(), "json": (folder / "about.json").read_bytes()}
    ]
    return Bench(
        seeds,
        guarded,
        (),
        [b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\xff", b"\0\0\0\1", b'"encoder"', b"[]"],
        finish=finish,
    )


def search_index(scratch: Path) -> Bench:
    """An index folder: what it holds, vectors, neighbours' graph."""
    import numpy as np
    from modalign import UserError
    from modalign.search.index import Index
    from modalign.search.index_files import open_index, save_index
    from modalign.search.items import Item, Place
    from modalign.search.nearest import Nearest

    draw = np.random.default_rng(0)
    seeds = []
    for kind in ("flat", "hnsw", "ivfpq"):
        index = Index(
            "s" * 64,
            8,
            [
                Item(m, bytes([i]) * 16, Place(f"/x/{i}", None, i if m == "a" else None), "w" if i else None)
                for i in range(40)
                for m in ("a", "b")
            ],
        )
        for m in ("a", "b"):
            vectors = draw.normal(size=(40, 8)).astype(np.float32)
            index.vectors[m] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            index.kinds[m] = kind
            index.graphs[m] = Nearest(index.vectors[m], kind).graph
        index.version = None
        save_index(index, scratch / kind)
        seeds.append({path.name: path.read_bytes() for path in sorted((scratch / kind).iterdir())})
    folder = scratch / "index"
    tree = json.loads(seeds[1]["index.json"])

    def read(files: Files, _: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        index = open_index(folder, "s" * 64)
        for name in index.modalities:
            index.nearest(name).search(np.ones((1, 8), np.float32), 3)
        _ = [str(item.place) for item in index.items[:5]]

    def edit(files: Files, chance: random.Random) -> Files:
        return {
            **files,
            "index.json": json.dumps(
                changed(tree, [*tree, "a", "b", "flat", "hnsw", "ivfpq"], chance), default=str, skipkeys=True
            ).encode(errors="surrogatepass"),
        }

    tokens = [
        b"IHNf",
        b"IxFI",
        b"IwPQ",
        b"IxF2",
        b"'descr'",
        b"'|O'",
        b"'<f4'",
        b"(40, 8)",
        b"(99999999999, 8)",
        b"\x93NUMPY",
        b"PAR1",
        b"\xff" * 8,
        b"hnsw",
        b"flat",
        b"\0" * 8,
    ]
    return Bench(seeds, read, (UserError,), tokens, edit)
