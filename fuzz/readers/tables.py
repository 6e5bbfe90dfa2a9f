"""Tables, shards and folders, read through ``Dataset`` as a stage reads them."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..documents import ODD, changed
from ..reader import Bench, Files

COLUMNS = {"picture": "picture", "word": "word"}
ROWS: list[dict[str, Any]] = [
    {"picture": "a.png", "word": "red", "label": "k", "split": "train", "numbers": [1.0, 2.0], "n": 1},
    {"picture": "no/b.png", "word": "mañana", "label": "l", "split": "val", "numbers": [], "n": 2},
    {"picture": "", "word": "NA", "label": "k", "split": "test", "numbers": [3.5], "n": None},
    {"picture": None, "word": None, "label": "l", "split": "train", "numbers": None, "n": 4},
]


def use(data: dict[str, Any], folder: Path) -> None:
    """What a stage asks a table: its splits, labels, rows that are usable, sizes, cells and their keys."""
    from modalign.training.data import Dataset
    from modalign.training.data_plan import Data

    dataset = Dataset(Data(**data), folder, ["picture", "word", "numbers"], ["word"])
    rows = len(dataset)
    _ = dataset.splits, dataset.labels, dataset.columns, dataset.digest()
    for split in list(dataset.splits)[:3]:
        dataset.orders(dataset.usable(split, ["picture", "word"], 1), 0)
    for row in [*range(min(rows, 8)), *range(max(rows - 2, 8), rows)]:
        for modality in ("picture", "word", "numbers"):
            for cell in dataset.cells(modality, row)[:4]:
                _ = cell.key, cell.size
            table, local = dataset.locate(row)
            table.size(modality, local)


def _bench(
    scratch: Path, name: str, seeds: list[bytes], data: dict[str, Any], tokens: list[bytes],
    edit: Callable[[Files, random.Random], Files] | None = None,
) -> Bench:  # fmt: skip
    from modalign import UserError

    (scratch / "a.png").write_bytes(b"x" * 50)
    if not (scratch / "fifo").exists():
        os.mkfifo(scratch / "fifo")

    def read(files: Files, folder: Path) -> None:
        (folder / name).write_bytes(files[name])
        use({"table": name, **data}, folder)

    return Bench([{name: seed} for seed in seeds], read, (UserError,), tokens, edit)


BASE: dict[str, Any] = {"label": "label", "split": "split"}


def csv(scratch: Path) -> Bench:
    """CSV."""
    text = "picture,word,label,split,numbers\n" + "".join(
        f'{r["picture"] or ""},"{r["word"] or ""}",{r["label"]},{r["split"]},{r["n"] or ""}\n' for r in ROWS
    )
    tokens = [
        b",",
        b'"',
        b'""',
        b"\n",
        b"\r",
        b"\r\n",
        b"/dev/zero",
        b"fifo",
        b"2020-01-01",
        b"1e999",
        b"true",
        b"picture,",
        b",,,,\n",
        b"word",
    ]
    return _bench(
        scratch,
        "t.csv",
        [text.encode(), text.replace(",", "\t").encode()[:0] + text.encode() * 2],
        BASE,
        tokens,
    )


def jsonl(scratch: Path) -> Bench:
    """JSON lines."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    nested = [
        {**row, "picture": {"bytes": "eA==", "path": "a.png"}, "word": [row["word"] or "x", "y"]}
        for row in ROWS
    ]
    words = ["picture", "word", "label", "split", "numbers", "bytes", "path", "/dev/zero", "fifo"]

    def edit(files: Files, draw: random.Random) -> Files:
        rows = changed(draw.choice([ROWS, nested]), words, draw)
        lines = rows if isinstance(rows, list) else [rows]
        return {"t.jsonl": "\n".join(_line(row) for row in lines).encode(errors="surrogatepass")}

    tokens = [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\n",
        b"null",
        b"\\ud800",
        b"\\u0000",
        b'"picture"',
        b'"bytes"',
        b'"/dev/zero"',
        b'"fifo"',
    ]
    seeds = [text.encode(), "".join(json.dumps(row) + "\n" for row in nested).encode()]
    return _bench(scratch, "t.jsonl", seeds, BASE, tokens, edit)


def _line(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return "{}"


def _parquets() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = []
    structs = [{**r, "picture": {"bytes": b"x" * 20, "path": None}, "word": [r["word"]]} for r in ROWS]
    for rows, options in ((ROWS, {}), (ROWS, {"compression": "zstd", "row_group_size": 2}), (structs, {"compression": "none"}),
                          (ROWS, {"use_dictionary": False, "data_page_version": "2.0", "compression": "gzip"})):  # fmt: skip
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), file, **options)
        made.append(file.getvalue())
    return made


PARQUET = [
    b"PAR1",
    b"ARROW:schema",
    b"\x15\x00",
    b"\x19\xfc",
    b"\x28\xb5\x2f\xfd",
    b"\x1f\x8b",
    b"picture",
    b"word",
    b"label",
    b"\xff\xff\xff\xff\x0f",
]


def parquet(scratch: Path) -> Bench:
    """Parquet, whole in memory."""
    return _bench(scratch, "t.parquet", _parquets(), BASE, PARQUET)


def parquet_shards(scratch: Path) -> Bench:
    """Parquet, read row group by row group."""
    return _bench(scratch, "t.parquet", _parquets(), {**BASE, "stream": True}, PARQUET)


def tar(scratch: Path) -> Bench:
    """Tar archives, as WebDataset writes them."""
    seeds = [_tar(tarfile.PAX_FORMAT), _tar(tarfile.GNU_FORMAT), _tar(tarfile.USTAR_FORMAT)]
    data = {"columns": {"picture": "png;jpg", "word": "json.word.a", "numbers": "txt"}, "label": "cls"}
    tokens = [b"ustar\x0000", b"ustar  \x00", b"0000777\0", b"00000000000\0", b"77777777777\0", b"\x80\0\0\0\0\0\0\0", b"\xff" * 12, b"L", b"K", b"x", b"g", b"S",
              b"1", b"2", b"5", b"30 path=a/b.png\n", b"22 size=99999999999\n", b"GNU.sparse.map", b"././@LongLink", b"../../x.png", b"/etc/x.txt", b".png"]  # fmt: skip
    bench = _bench(scratch, "t.tar", seeds, data, tokens)
    return Bench(bench.seeds, bench.read, bench.refuses, tokens, finish=_summed)


def _tar(kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for i, row in enumerate(ROWS):
            for ending, data in (("png", b"x" * 30), ("json", json.dumps({"word": {"a": row["word"]}}).encode()),
                                 ("txt", "é1".encode()), ("cls", row["label"].encode())):  # fmt: skip
                about = tarfile.TarInfo(
                    f"{'long/' * (25 if i == 2 and kind != tarfile.USTAR_FORMAT else 1)}{i}.{ending}"
                )
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
        if kind != tarfile.USTAR_FORMAT:
            link = tarfile.TarInfo("some/9.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return file.getvalue()


def _summed(files: Files) -> Files:
    """Right checksums for damaged headers, or none would be looked at."""
    content = bytearray(files["t.tar"])
    for at in range(0, len(content) - 511, 512):
        if content[at + 257 : at + 262] == b"ustar":
            content[at + 148 : at + 156] = b" " * 8
            content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return {"t.tar": bytes(content)}


def tar_index(scratch: Path) -> Bench:
    """The kept index of an archive, in which anything may stand: offsets, sizes, endings."""
    from modalign import UserError
    from modalign.training.shards import tar_index as module

    archive = scratch / "t.tar"
    archive.write_bytes(_tar(tarfile.GNU_FORMAT))
    os.utime(archive, (1, 1))
    data = {
        "table": "t.tar",
        "columns": {"picture": "png", "word": "json.word.a", "numbers": "txt"},
        "label": "cls",
    }
    use(data, scratch)
    folder = Path(os.environ["MODALIGN_CACHE"]) / "shards"
    kept = {path.suffix: path for path in folder.iterdir()}

    def read(files: Files, _: Path) -> None:
        for path in kept.values():
            path.write_bytes(files[path.suffix])
        use(data, scratch)

    assert module.FORM
    seeds = [{suffix: path.read_bytes() for suffix, path in kept.items()}]
    tokens = [
        b"'descr'",
        b"'<i8'",
        b"'|O'",
        b"'fortran_order'",
        b"True",
        b"'shape'",
        b"(4, 4, 2)",
        b"\x93NUMPY",
        b'"png"',
        b"[",
        b"null",
        b"\xff" * 8,
        b"\0" * 8,
    ]
    return Bench(seeds, read, (UserError,), tokens)


def folder(scratch: Path) -> Bench:
    """A folder of files as a table; damaged are names and texts."""
    from modalign import UserError

    names = [
        "a.png",
        "a.txt",
        "b.png",
        "b.txt",
        "sub/a.png",
        "sub/a.txt",
        "sub/.hidden.txt",
        "c.seg.png",
        "plain",
    ]
    where = scratch / "folder"

    def read(files: Files, _: Path) -> None:
        import shutil

        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        for line in files["names"].split(b"\n")[:20]:
            name = line.replace(b"\0", b"").strip(b"/")[:200]
            path = os.path.normpath(os.path.join(os.fsencode(where), name))
            if name and path.startswith(os.fsencode(where) + b"/"):
                try:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.write(files["text"] if name.endswith(b"txt") else b"x")
                except OSError:
                    continue
        use(
            {"table": "folder", "columns": {"picture": "png;seg.png", "word": "txt"}, "label": "folder"},
            scratch,
        )

    seeds = [{"names": "\n".join(names).encode(), "text": "mañana".encode()}]
    tokens = [
        b"\n",
        b".txt",
        b".png",
        b".",
        b"/",
        b"..",
        b"\nfolder.folder",
        b"A.TXT",
        b"\xff.txt",
        b"a.",
        b".a.b.c",
        b"\n" + b"x" * 190 + b".txt",
    ]
    return Bench(seeds, read, (UserError,), tokens)


__all__ = ["ODD", "csv", "folder", "jsonl", "parquet", "parquet_shards", "tar", "tar_index"]
