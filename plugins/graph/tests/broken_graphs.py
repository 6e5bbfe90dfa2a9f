"""Broken molecules, triples and graphs, and a child process that reads them within limits.

python broken_graphs.py N KIND...
"""

# ruff: noqa: E501
from __future__ import annotations

import io
import json
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SMILES = "C[C@H](N)C(=O)N/C=C\\c1ccc2[nH]ccc2c1.[Na+].[O-]Cl"
TURTLE = """@prefix ex: <http://example.org/Löwe/> .
@base <http://example.org/> .
ex:Århus a ex:City ; ex:leaderName "Jacob \\u00e5"@da, '''long
text''' ; ex:area 91.0, 5, 1.0e3, true ; ex:near [ ex:name "x" ; ex:list (1 2 <#b>) ] .
<#b> <http://www.w3.org/2000/01/rdf-schema#label> "1999-01-01"^^<http://www.w3.org/2001/XMLSchema#date> .
"""
NTRIPLES = "".join(f'<http://e.org/{i}> <http://e.org/p> "v{i}\\n"@en .\n' for i in range(20))
JSON = json.dumps([["Århus", "leaderName", "Jacob"], ["Århus", "area", 91.0], ["世界", "p", "🎵"]])


def mol_block(version: int = 2000) -> str:
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(SMILES)
    return Chem.MolToV3KMolBlock(molecule) if version == 3000 else Chem.MolToMolBlock(molecule)


def npz(**change: object) -> bytes:
    """A graph of 30 nodes; a change to None leaves an array out."""
    draw = np.random.default_rng(0)
    arrays: dict[str, object] = {
        "indptr": np.arange(31, dtype=np.int32) * 3,
        "indices": draw.integers(0, 20, 90, dtype=np.int32),
        "shape": np.array([30, 20]),
        "edges": draw.integers(0, 30, (60, 2)),
    } | change
    file = io.BytesIO()
    np.savez_compressed(file, **{k: v for k, v in arrays.items() if v is not None})  # type: ignore[arg-type]
    return file.getvalue()


def wholes() -> dict[str, bytes]:
    return {
        "smiles": SMILES.encode(),
        "mol": mol_block().encode(),
        "mol3000": mol_block(3000).encode(),
        "sdf": (mol_block() + "> <name>\nLöwe\n\n$$$$\n").encode(),
        "json": JSON.encode(),
        "turtle": TURTLE.encode(),
        "ntriples": NTRIPLES.encode(),
        "npz": npz(),
    }


def absurd(kind: str) -> Iterator[bytes]:
    """Files made to cost memory or time, and files of other kinds."""
    yield from (b"", b"\0", b"\n", b"\xff" * 1000, "Grüße, 世界 🎵".encode(), b"PK\3\4", b"[", b"<", b"]" * 9)
    yield from (whole for other, whole in wholes().items() if other != kind)
    if kind == "smiles":
        yield from (b"C" * 5_000_000, b"C" * 4000, b"C" * 1024, b"(" * 4000, b"C(" * 2000, b"[" * 4000)
        yield b"C" + b"(C)" * 1000
        yield b"".join(b"C%" + str(10 + i).encode() for i in range(90)) * 2
        yield b"C12345678" * 100 + b"C12345678" * 100
        yield b"".join(b"C1" + b"C2" * 2 + b"C1" for _ in range(120))
        yield b"C1CC2" * 500 + b"C1CC2" * 300
        yield b"[" + b"9" * 1000 + b"C]"
        yield from (
            b"[C+99999999]",
            b"[C-15]",
            b"[CH99]",
            b"[Og+8]",
            b"[#119]",
            b"[#6]",
            b"[*]",
            b"*",
            b"C%(99999)C",
        )
        yield from (
            b"c1cccc1",
            b"c1ccccc1" * 50,
            b"CC(C)(C)(C)C",
            b"C>>C",
            b"CC |$x$|",
            b"C\0C",
            b"C C",
            b"C.C.C" * 200,
        )
        yield from (
            b"[H][H]",
            b"[H]" * 300,
            b"[2H]",
            b"[CH2]",
            b"C$C",
            b"C~C",
            b"N->[Cu]",
            b"[C@TH1](F)(Cl)(Br)I",
            b"[Co@OH30](C)(C)(C)(C)(C)C",
        )
        yield b"F[C@](Cl)(Br)/C=C/" * 100 + b"C"
        yield b"c1ccc2c(c1)" * 60 + b"C" + b"cc2" * 60
    if kind in ("mol", "mol3000", "sdf"):
        whole = wholes()[kind].decode()
        yield (whole * 3).encode()
        yield (whole + "$$$$\n" + whole).encode()
        for old, new in (
            (" 21 20", "999999"), (" 0  0  0", "999999999"), ("V2000", "V3000"), ("V3000", "V2000"), ("COUNTS", "COUNTS 999999999 9"),
            ("0.0000", "nan"), ("0.0000", "1e308"), ("  1  2", "  1999"), (" C ", " Xx"), (" C ", " A "), (" N ", " R# "), (" C ", " L "),
            ("M  END", ""), ("M  END", "M  CHG  1   1 999\nM  END"), ("M  END", "M  ISO  8   1 999\nM  END"),
            ("M  END", "M  RGP  1   1   1\nM  END"), ("M  END", "M  STY  1   1 SRU\nM  SAL   1 99\nM  END"), ("\n", "\r\n"), ("\n", "\r"),
            ("BEGIN ATOM", "BEGIN ATOM\nM  V30 1 C 0 0 0 0 CFG=9"), ("M  V30 1 ", "M  V30 99999999999 "), ("M  V30 1 ", "M  V30 -1 "),
        ):  # fmt: skip
            yield whole.replace(old, new).encode()
        yield (whole + "x" * 5_000_000).encode()
        yield (
            "\n\n\n999999  0  0  0  0  0  0  0  0  0999 V2000\n" + "    0.0 0.0 0.0 C   0\n" * 5000
        ).encode()
    if kind in ("json", "turtle", "ntriples"):
        yield from (
            b"[" * 100_000,
            b"[[" + b"[" * 60_000,
            b'[["a","b","' + b"x" * 2_000_000 + b'"]]',
            b"{}",
            b"null",
            b"[1]",
            b"[[]]",
        )
        yield from (
            b'[["a","b"]]',
            b'[["a","b",null]]',
            b'[["a","b",["c"]]]',
            b'[["","b","c"]]',
            b'[["a","b",NaN]]',
            b'[["a","b",1e999]]',
        )
        yield from (
            b'[["\\ud800","b","c"]]',
            b'[["a","b","\\u0000"]]',
            b'[["a","b",' + b"9" * 6000 + b"]]",
            b'[["a","b",true]]',
        )
        yield json.dumps([["s", "p", str(i)] for i in range(3000)]).encode()
        yield ('[["' + "é" * 90_000 + '","p","o"]]').encode()
        yield '[["a","b","c"]]'.encode("utf-16")
        xsd = "http://www.w3.org/2001/XMLSchema#"
        for value, kind_ in (("1E+999999999", "decimal"), ("1" * 9000, "integer"), ("9" * 4000 + ".5", "decimal"), ("1e999999", "double"),
                             ("P999999999999Y", "duration"), ("99999-99-99", "date"), ("-" * 999, "dateTime"), ("A" * 999, "base64Binary"), ("x", "")):  # fmt: skip
            yield f'<a:s> <a:p> "{value}"^^<{xsd}{kind_}> .'.encode()
        bomb = '<!DOCTYPE b [<!ENTITY a0 \\"' + "x" * 1000 + '\\">'
        bomb += (
            "".join(f'<!ENTITY a{i + 1} \\"' + f"&a{i};" * 10 + '\\">' for i in range(9)) + "]><b>&a9;</b>"
        )
        rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
        yield f'<a:s> <a:p> "{bomb}"^^<{rdf}XMLLiteral> .'.encode()
        yield f'<a:s> <a:p> "<p>x<b>"^^<{rdf}HTML> .'.encode()
        yield b"@prefix : <a:> . :a :p " + b"[ :p " * 2000 + b"1" + b" ]" * 2000 + b" ."
        yield b"@prefix : <a:> . :a :p " + b"( " * 5000 + b")" * 5000 + b" ."
        yield b"@prefix : <a:> . :a :p (" + b" 1" * 20_000 + b") ."
        yield b"@prefix : <a:> . " + b":a :p :b . " * 9000
        yield b"@prefix : <http://127.0.0.1:9/x#> . @base <http://127.0.0.1:9/> . :a :p <b> . <http://127.0.0.1:9/c> a :d ."
        yield b"<a:b> <a:c> <../../../../etc/passwd> ."
        yield b"<file:///etc/passwd> <a:c> <file:///etc/passwd> ."
        yield b"@forAll :x . { :a :b :c } => { :d :e :f } ."
        yield b'{"@context": "http://127.0.0.1:9/context", "a": 1}'
    if kind == "npz":
        big = np.zeros((4000, 4000, 8), np.int64)
        yield npz(edges=np.broadcast_to(np.int64(0), (60_000_000, 2)))  # unpacks to a gigabyte
        del big
        for change in (
            {"edges": None}, {"shape": None}, {"indptr": None}, {"indices": None}, {"edges": np.zeros((5, 3), int)}, {"edges": np.zeros(5)},
            {"edges": np.array([[0, 30]])}, {"edges": np.array([[0, -1]])}, {"edges": np.array([["a", "b"]])}, {"edges": np.zeros((0, 2), int)},
            {"edges": np.array([[0.5, 1.5]])}, {"edges": np.array([[object(), 1]], dtype=object)}, {"shape": np.array([1 << 60, 20])},
            {"shape": np.array([30, 1 << 60])}, {"shape": np.array([30, 1 << 31])}, {"shape": np.array([30, 2])}, {"shape": np.array([-1, 20])}, {"shape": np.array(30)},
            {"indptr": np.arange(31)[::-1] * 3}, {"indptr": np.zeros(31, int)}, {"indptr": np.zeros((31, 1), int)}, {"indices": np.full(90, 20)},
            {"data": np.ones(5)}, {"data": np.full(90, np.nan)}, {"data": np.full(90, "x")}, {"data": np.ones(90, complex)},
            {"features": np.ones((30, 5))}, {"features": np.full((30, 5), np.inf)}, {"features": np.ones((2, 5))}, {"features": np.ones((0, 5))},
        ):  # fmt: skip
            yield npz(**change)
        for head in (b"{'descr': '<i8', 'fortran_order': False, 'shape': (1 << 60, 2)}", b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999, 2), }",
                     b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 2), }", b"(" * 5000, b"{'descr': '<i8', 'fortran_order': False, 'shape': (-5, 2), }"):  # fmt: skip
            array = b"\x93NUMPY\x01\x00" + len(head + b"\n").to_bytes(2, "little") + head + b"\n" + bytes(64)
            file = io.BytesIO(npz(edges=None))
            with zipfile.ZipFile(file, "a") as archive:
                archive.writestr("edges.npy", array)
            yield file.getvalue()
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(5000):
                archive.writestr(f"{i}.npy", b"")
        yield file.getvalue()


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Cut, with bits flipped, bytes replaced, parts repeated or moved."""
    data = bytearray(whole)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data)) if data else 0
        match draw.randrange(6):
            case 0:
                del data[at:]
            case 1 if data:
                data[at] ^= 1 << draw.randrange(8)
            case 2 if data:
                data[at] = draw.randrange(256)
            case 3:
                data[at:at] = data[at : at + draw.randrange(40)] * draw.randrange(1, 50)
            case 4:
                del data[at : at + draw.randrange(1, 20)]
            case 5:
                data[at:at] = draw.choice(
                    ["🎵", "é", "\u202e", "999999999", "-1", "[", "(", '"', "\0"]
                ).encode()
    return bytes(data)


def broken(kind: str, n: int) -> list[bytes]:
    """``n`` broken files of a kind, the absurd ones first; the same every time."""
    draw, whole = random.Random(kind), wholes()[kind]
    files = list(absurd(kind))
    return [*files, *(damaged(whole, draw) for _ in range(n - len(files)))][:n]


def peak_mb() -> float:
    """This process's own peak; what getrusage says may be its parent's, from before it was replaced."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_all(kind: str, n: int) -> dict[str, object]:
    """What reading gave: how many were refused or read, the slowest, the memory at its peak, what went wrong."""
    from modalign import BadSample, UserError
    from modalign_graph.knowledge_graph import KnowledgeGraph
    from modalign_graph.molecule import Molecule
    from modalign_graph.node import Node

    molecule, graph = Molecule(fingerprints=["morgan", "groups"], size=64), KnowledgeGraph()
    modality = graph if kind in ("json", "turtle", "ntriples") else molecule
    counts, wrong, slowest = {"refused": 0, "read": 0}, [], 0.0
    for i, data in enumerate(broken(kind, n)):
        begun = time.perf_counter()
        try:
            if kind == "npz":
                with tempfile.NamedTemporaryFile(suffix=".npz") as file:
                    file.write(data)
                    file.flush()
                    modality = Node(file.name, communities=True)
                    item = modality.read(0)
            elif kind == "smiles":
                item = modality.read(data.decode("latin-1"))
            else:
                item = modality.read(data)
            modality.collate([item])
            modality.preview(item)
            counts["read"] += 1
        except (BadSample, UserError) as error:
            counts["refused"] += 1
            text = str(error)
            if not text.strip() or len(text) > 400 or "Traceback" in text or "\n" in text:
                wrong.append(f"{i}: says {text[:200]!r}")
        except Exception as error:
            wrong.append(f"{i}: {type(error).__name__}: {str(error)[:200]} from {data[:60]!r}")
        slowest = max(slowest, time.perf_counter() - begun)
    peak = peak_mb()
    return {**counts, "slowest": slowest, "peak_mb": peak, "wrong": wrong[:20]}


if __name__ == "__main__":
    found = {kind: read_all(kind, int(sys.argv[1])) for kind in sys.argv[2:]}
    sys.stdout.write(json.dumps(found))
