"""Every modality of every plugin: ``read`` of files and literals, then ``collate`` and ``preview``."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..reader import Bench, Files

PLUGINS = Path(__file__).parents[2] / "plugins"


def _tests(plugin: str, name: str) -> Any:
    """A module of a plugin's tests, which know whole files of every kind."""
    folder = PLUGINS / plugin / "tests"
    known = f"fuzz_{plugin}_{name}"
    if known not in sys.modules:
        sys.path.insert(0, str(folder))
        spec = importlib.util.spec_from_file_location(known, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
        sys.path.remove(str(folder))
    return sys.modules[known]


def _bench(
    modality: Any,
    wholes: Sequence[bytes | str],
    tokens: Sequence[bytes] = (),
    as_text: bool | None = None,
    preview: bool = True,
) -> Bench:
    """Each input as bytes, as text where strings are items, and now and then as a path.

    Inputs:
        preview: not of scores, each of which is engraved in a process of its own.
    """
    from modalign import BadSample

    text = modality.literal if as_text is None else as_text

    def read(files: Files, folder: Path) -> None:
        data = files["file"]
        value: Any = data
        way = len(data) % 8
        if way == 0:
            value = folder / "file.bin"
            value.write_bytes(data)
        elif text and way < 6:
            value = data.decode("utf-8", "surrogateescape")
        item = modality.read(value)
        modality.collate([item])
        if preview:
            modality.preview(item)

    seeds = [{"file": whole.encode() if isinstance(whole, str) else whole} for whole in wholes]
    for seed in list(seeds):
        try:
            read(seed, Path.cwd())
        except BadSample:  # cut short on purpose
            seeds.remove(seed)
    assert seeds
    return Bench(seeds, read, (BadSample,), tokens)


def text(scratch: Path) -> Bench:
    """Text."""
    from modalign_text.modality import Text

    modality = Text(max_bytes=200)
    return _bench(
        modality,
        modality.example(14),
        [b"\xcc\x81", b"\xe2\x80\x8d", b"\xf0\x9f\x87\xa9", b"\xff\xfe", b"\xc0\x80"],
    )


def image(scratch: Path) -> Bench:
    """Pictures of every format that Pillow writes here."""
    import numpy as np
    from modalign_image.modality import Image
    from PIL import Image as Pillow

    grey = Pillow.fromarray((np.add.outer(np.arange(12) * 9, np.arange(17) * 7) % 256).astype(np.uint8))
    wholes = []
    for mode, form, options in (
        ("RGB", "PNG", {}), ("P", "PNG", {"transparency": 3}), ("I;16", "PNG", {}), ("RGB", "JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}),
        ("L", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("RGBA", "WEBP", {}), ("RGB", "WEBP", {"lossless": True}), ("P", "GIF", {}), ("RGB", "BMP", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("L", "TIFF", {"compression": "tiff_adobe_deflate"}), ("F", "TIFF", {}), ("1", "TIFF", {"compression": "group4"}),
        ("RGB", "PPM", {}), ("RGBA", "ICO", {}), ("RGB", "JPEG2000", {}), ("RGB", "AVIF", {}), ("RGB", "QOI", {}),
    ):  # fmt: skip
        file = io.BytesIO()
        try:
            (grey.convert("I").convert(mode) if mode == "I;16" else grey.convert(mode)).save(
                file, form, **options
            )
        except (OSError, KeyError, ValueError):  # a Pillow without that format
            continue
        wholes.append(file.getvalue())
    tokens = [b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"eXIf", b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xe1", b"RIFF", b"VP8X", b"ANIM", b"GIF89a", b"II*\0", b"MM\0*",
              b"\0\0\0\x0cjP  ", b"ftypavif", b"P7\n", b"P6\n", b"\x01\x01\x03\0", b"\x11\x01\x04\0"]  # fmt: skip
    return _bench(Image(size=16), wholes, tokens)


def audio(scratch: Path) -> Bench:
    """Sounds of every format that libsndfile writes."""
    import numpy as np
    import soundfile
    from modalign_audio.modality import Audio

    wave = np.sin(np.arange(300) / 5) / 2
    wholes = []
    for form, kind, channels, rate in (
        ("WAV", "PCM_16", 1, 4000), ("WAV", "FLOAT", 2, 8000), ("WAV", "MS_ADPCM", 1, 4000), ("WAV", "ULAW", 1, 4000), ("FLAC", "PCM_16", 2, 4000), ("OGG", "VORBIS", 1, 8000),
        ("OGG", "OPUS", 1, 8000), ("AIFF", "PCM_24", 1, 4000), ("AU", "ALAW", 1, 4000), ("CAF", "PCM_16", 1, 4000), ("MP3", "MPEG_LAYER_III", 1, 8000), ("W64", "PCM_16", 1, 4000), ("RF64", "PCM_16", 1, 4000),
    ):  # fmt: skip
        file = io.BytesIO()
        try:
            soundfile.write(file, np.stack([wave] * channels, 1), rate, kind, format=form)
        except (soundfile.LibsndfileError, ValueError):
            continue
        wholes.append(file.getvalue())
    tokens = [
        b"RIFF",
        b"WAVE",
        b"fmt ",
        b"data",
        b"fact",
        b"LIST",
        b"fLaC",
        b"OggS",
        b"\1vorbis",
        b"OpusHead",
        b"FORM",
        b"COMM",
        b"SSND",
        b".snd",
        b"caff",
        b"desc",
        b"ID3",
        b"\xff\xfb",
        b"\xff\xff\xff\xff",
    ]
    return _bench(Audio(rate=4000, max_seconds=1), wholes, tokens)


def _music(kind: str) -> Callable[[Path], Bench]:
    def bench(scratch: Path) -> Bench:
        from modalign_music.midi import Midi
        from modalign_music.score import Score

        tests = _tests("music", "broken_music")
        modality = Midi() if kind == "midi" else Score()
        return _bench(modality, [tests.WHOLE[kind]], MUSIC[kind], kind == "abc", preview=kind == "midi")

    return bench


MUSIC: dict[str, list[bytes]] = {
    "midi": [b"MThd", b"MTrk", b"\xff\x2f\0", b"\xff\x51\3", b"\xff\x58\4", b"\xf0", b"\xf7", b"\x90", b"\x80", b"\xff\xff\xff\x7f", b"\0\0\0\6"],
    "abc": [b"X:", b"M:", b"K:", b"L:", b"Q:", b"V:", b"|:", b":|", b"[1", b"(3", b"{", b"}", b"w:", b"%%", b"I:", b"z99", b"^^", b"__", b"'", b",,,", b"!f!", b"P:", b"U:", b"m:"],
    "musicxml": [b"<note>", b"</note>", b"<chord/>", b"<rest/>", b"<duration>", b"<measure ", b"<backup>", b"<forward>", b"<!DOCTYPE x [", b"<!ENTITY a 'b'>", b"&a;", b"<![CDATA[", b"<?xml", b"<tie ", b"<part id='P1'>"],
    "mxl": [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"META-INF/container.xml", b"rootfile", b"full-path=", b"\x08\0", b"\xff\xff\xff\xff"],
    "kern": [b"**kern", b"*^", b"*v", b"*x", b"*+", b"*-", b"\t", b"=", b"4c", b"*M", b"*k[", b"!!!", b"*I", b"00", b"%", b"**dynam", b"*clef"],
}  # fmt: skip


def _graph(kind: str) -> Callable[[Path], Bench]:
    def bench(scratch: Path) -> Bench:
        from modalign_graph.knowledge_graph import KnowledgeGraph
        from modalign_graph.molecule import Molecule

        tests = _tests("graph", "broken_graphs")
        if kind in ("molecule-smiles", "molecule-file"):
            wholes = tests.wholes()
            kinds = ["smiles"] if kind == "molecule-smiles" else ["mol", "mol3000", "sdf"]
            modality = Molecule(fingerprints=["morgan", "groups"], size=64)
            tokens = [
                b"[C@@H]",
                b"c1ccccc1",
                b"%10",
                b"[",
                b"]",
                b"(",
                b")",
                b"=",
                b"#",
                b".",
                b"[#6]",
                b"[Og+8]",
                b"V2000",
                b"V3000",
                b"M  END",
                b"M  V30 ",
                b"$$$$",
                b"M  CHG",
                b"COUNTS",
                b"BEGIN ATOM",
            ]
            return _bench(modality, [wholes[k] for k in kinds], tokens)
        wholes = tests.wholes()
        tokens = [
            b"<",
            b">",
            b" .",
            b" ;",
            b" ,",
            b'"',
            b"'''",
            b"@prefix ",
            b"@base ",
            b"^^",
            b"@en",
            b"[ ",
            b" ]",
            b"( ",
            b" )",
            b"_:b",
            b"\\u00e5",
            b"\\U0001F600",
            b"a ",
            b"http://127.0.0.1:9/x",
            b"[[",
            b'["s", "p", "o"]',
            b"@forAll ",
        ]
        return _bench(KnowledgeGraph(), [wholes["json"], wholes["turtle"], wholes["ntriples"]], tokens)

    return bench


def node(scratch: Path) -> Bench:
    """The graph that nodes lie in."""
    from modalign import BadSample, UserError
    from modalign_graph.node import Node

    tests = _tests("graph", "broken_graphs")
    seeds = [{"g.npz": tests.npz()}]
    file = scratch / "g.npz"

    def read(files: Files, folder: Path) -> None:
        file.write_bytes(files["g.npz"])
        modality = Node(str(file), communities=True)
        modality.collate([modality.read(0)])

    tokens = [
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"edges.npy",
        b"indptr.npy",
        b"'descr'",
        b"'|O'",
        b"'<i8'",
        b"(60, 2)",
        b"(99999999999, 2)",
        b"\x93NUMPY",
        b"\xff\xff\xff\xff",
    ]
    return Bench(seeds, read, (BadSample, UserError), tokens, _npz_edit)


def _npz_edit(files: Files, draw: Any) -> Files:
    """Arrays inside the archive are damaged, and packed again with right checksums."""
    import zipfile

    from ..mutate import damaged

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(files["g.npz"])) as old, zipfile.ZipFile(out, "w") as new:
        hit = draw.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            new.writestr(
                name,
                damaged(
                    data, data, [b"'|O'", b"'<i8'", b"'<f4'", b"(60, 2)", b"(99999999999, 2)", b"True"], draw
                )
                if name == hit
                else data,
            )
    return {"g.npz": out.getvalue()}


def _medical(kind: str) -> Callable[[Path], Bench]:
    def bench(scratch: Path) -> Bench:
        from modalign_medical.ecg import Ecg
        from modalign_medical.labs import Labs
        from modalign_medical.report import ClinicalReport
        from modalign_medical.scan import Scan

        tests = _tests("medical", "absurd_files")
        modality, make = {
            "scan-dicom": (Scan(16), tests.dicoms),
            "scan-nifti": (Scan(16), tests.niftis),
            "scan-picture": (Scan(16), tests.pictures),
            "ecg-edf": (Ecg(leads=2, rate=100), tests.edfs),
            "ecg-table": (Ecg(leads=2, rate=100), tests.tables),
            "labs": (
                Labs({"sodium": [120, 140, 160], "potassium": [2, 4, 7], "lactate": [0, 1, 15]}),
                tests.labs,
            ),
            "report-text": (ClinicalReport(sections=["findings", "impression"]), tests.reports),
        }[kind]
        wholes = [whole for whole in make()[0] if isinstance(whole, bytes | str)]
        tokens = [b"DICM", b"\x28\0\x10\0US\2\0", b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xff\xff\xff", b"1.2.840.10008.1.2.4.50", b"OW\0\0", b"SQ\0\0", b"n+1\0", b"\x1f\x8b", b"EDF+C", b"mV      ",
                  b"99999999", b"FINDINGS:", b"IMPRESSION:", b'"sodium"', b'"<', b":", b",", b"null", b"NaN", b"1e999", b"\x93NUMPY", b"'|O'"]  # fmt: skip
        return _bench(modality, wholes, tokens, as_text=kind in ("labs", "report-text"))

    return bench


def wfdb(scratch: Path) -> Bench:
    """WFDB records: a header and its signals."""
    from modalign import BadSample
    from modalign_medical.ecg import Ecg

    tests = _tests("medical", "absurd_files")
    modality = Ecg(leads=2, rate=100)
    seeds: list[Files] = []
    for form in ("16", "212", "80", "24"):
        tests.files.wfdb_record(scratch / "whole", f"r{form}", tests.LEADS, form)
        seeds.append(
            {
                end: (scratch / "whole" / f"r{form}{end}").read_bytes().replace(f"r{form}".encode(), b"r")
                for end in (".hea", ".dat")
            }
        )

    def read(files: Files, folder: Path) -> None:
        for end, data in files.items():
            (folder / f"r{end}").write_bytes(data)
        modality.collate([modality.read(folder / "r.hea")])

    tokens = [
        b"r.dat",
        b" 16 ",
        b" 212 ",
        b" 516 ",
        b"x999",
        b":99",
        b"+99999",
        b"200/mV",
        b"/",
        b"../x",
        b"r.hea",
        b"~",
        b"#",
        b"\n",
        b" 250 500\n",
        b"99999999999",
    ]
    return Bench(seeds, read, (BadSample,), tokens)


def vector(scratch: Path) -> Bench:
    """Features computed elsewhere, as ``.npy`` files."""
    import numpy as np
    from modalign_vector.modality import Vector

    wholes = []
    for kind in ("<f4", "<f8", ">f4", "<f2", "|u1", "<i8"):
        for version in ((1, 0), (2, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, np.arange(6).astype(kind), version)
            wholes.append(file.getvalue())
    tokens = [b"\x93NUMPY", b"'descr'", b"'|O'", b"'<f4'", b"'fortran_order'", b"(6,)", b"(99999999999,)",
              b"(-1,)", b"(2,3)", b"{}", b"__import__", b"[('a','<f4')]"]  # fmt: skip
    return _bench(Vector(), wholes, tokens)


BENCHES: dict[str, Callable[[Path], Bench]] = {
    "text": text,
    "image": image,
    "audio": audio,
    **{f"score-{kind}": _music(kind) for kind in ("abc", "musicxml", "mxl", "kern")},
    "midi": _music("midi"),
    **{kind: _graph(kind) for kind in ("molecule-smiles", "molecule-file", "knowledge-graph")},
    "node": node,
    **{
        kind: _medical(kind)
        for kind in (
            "scan-dicom",
            "scan-nifti",
            "scan-picture",
            "ecg-edf",
            "ecg-table",
            "labs",
            "report-text",
        )
    },
    "ecg-wfdb": wfdb,
    "vector": vector,
}
