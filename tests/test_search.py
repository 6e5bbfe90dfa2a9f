"""Searching: what is indexed, what is embedded again, what is found, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import modalign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from modalign import UserError
from modalign.cli.main import main
from modalign.search import Term, add, find, hits, identity, open_index, parse, save_index, vector
from modalign.search.index import Index
from modalign.search.items import cell_of
from modalign.space import Space

from .conftest import NAMES, TINY, digit_rows

pytest.importorskip("faiss")


def train(digits: Path, out: Path, epochs: int) -> Path:
    """A space of pictures, names and tones; two epochs teach it little, thirty enough."""
    stage = {"losses": {"infonce": 1.0}, "epochs": epochs, "batch_size": 32, "lr": 3e-3}
    modalign.align(
        {
            "name": "tiny",
            "data": {"table": str(digits), "split": "split", "label": "label"},
            "modalities": TINY,
            "space": {"dim": 16, "projection": {"name": "universal", "width": 16, "heads": 2, "hidden": 32}},
            "stages": [
                {"name": "image-text", "align": ["image", "text"], **stage},
                {"name": "add-audio", "align": ["audio", "text"], **stage},
            ],
            "track": {"uri": None},
            "fabric": {"accelerator": "cpu"},
        },
        out=out,
    )
    return out / "space"


@pytest.fixture(scope="module")
def folder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space that has learnt a little."""
    return train(digits, tmp_path_factory.mktemp("run"), epochs=2)


@pytest.fixture(scope="module")
def space(folder: Path) -> Space:
    return modalign.load(folder)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Pictures, sounds and texts, a damaged file, and what is not looked at."""
    media = tmp_path / "media"
    (media / "below").mkdir(parents=True)
    (media / ".hidden").mkdir()
    for i, row in enumerate(digit_rows(6)):
        (media / f"{i}.png").write_bytes(row["image"]["bytes"])
        (media / "below" / f"{i}.wav").write_bytes(row["audio"]["bytes"])
        (media / f"{i}.txt").write_text(row["text"][0])
        (media / ".hidden" / f"{i}.png").write_bytes(row["image"]["bytes"])
    (media / "broken.png").write_bytes(digit_rows(1)[0]["image"]["bytes"][:40])
    (media / "empty.wav").touch()
    return media


def new(space: Space, folder: Path) -> Index:
    return Index(identity(folder), space.dim)


def count_encoded(space: Space, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    project = space.project
    monkeypatch.setattr(space, "project", lambda n, f: (seen.append(len(f.mask)), project(n, f))[1])
    return seen


def test_a_folder_by_what_reads_each_file(space, folder, files, tmp_path):
    index, done = add(space, new(space, folder), find(space, [files]))
    assert {name: len(rows) for name, rows in index.numbers.items()} == {"image": 6, "text": 6, "audio": 6}
    assert (done.new, done.known, done.gone) == (18, 0, 0)
    assert sorted(Path(place).name for place, _ in done.unreadable) == ["broken.png", "empty.wav"]
    assert all(reason for _, reason in done.unreadable)
    assert not any(".hidden" in item.place.file for item in index.items)
    for name in space.modalities:
        paths = [Path(index.items[i].place.file) for i in index.numbers[name]]
        values = [path.read_text() if name == "text" else path for path in paths]
        np.testing.assert_allclose(index.vectors[name], space.embed(name, values).numpy(), atol=1e-5)
    save_index(index, tmp_path / "index", done.unreadable)
    again = open_index(tmp_path / "index", identity(folder))
    assert again.items == index.items
    assert all(np.array_equal(again.vectors[n], index.vectors[n]) for n in space.modalities)
    assert "broken.png" in (tmp_path / "index" / "unreadable.csv").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index", "media"]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_found_is_what_brute_force_finds(space, folder, digits, kind, tmp_path):
    index, _ = add(space, new(space, folder), find(space, [digits]), kind)
    save_index(index, tmp_path / "index")
    index = open_index(tmp_path / "index", identity(folder))
    query = vector(space, [Term("text", "three")])
    torch.testing.assert_close(query, space.embed("text", ["three"])[0])
    for name, best in hits(index, query, 7).items():
        scores = index.vectors[name] @ query.numpy()
        expected = np.sort(scores)[::-1][:7]
        np.testing.assert_allclose([hit.score for hit in best], expected, atol=1e-5)
        assert all(index.items[hit.number] is hit.item and hit.item.modality == name for hit in best)
    assert hits(index, query, 3, ["audio"]).keys() == {"audio"}
    assert len(hits(index, query, 10_000, ["text"])["text"]) == 20  # ten names in two languages, once each
    assert hits(index, query, 1)["text"][0].item.literal == "three"


def test_csv_json_lines_and_other_columns(space, folder, files, tmp_path):
    (media := files / "t.csv").write_text("pic,name\n0.png,null\n1.png,007\nmissing.png,\n")
    index, done = add(space, new(space, folder), find(space, [media], {"image": "pic", "text": "name"}))
    assert [item.literal for item in index.items if item.modality == "text"] == ["null", "007"]
    assert [item.place.row for item in index.items if item.modality == "image"] == [0, 1]
    assert done.unreadable[0][0].endswith("t.csv, row 2, pic")
    lines = tmp_path / "t.jsonl"
    lines.write_text("\n".join(json.dumps({"text": [name, name.upper()]}) for name in NAMES))
    index, done = add(space, index, find(space, [lines]))
    assert (done.new, done.gone, len(index.numbers["text"])) == (20, 0, 22)
    with pytest.raises(UserError, match="--column image=COLUMN"):
        find(space, [media])
    with pytest.raises(UserError, match="pick"):
        find(space, [media], {"image": "pick"})
    with pytest.raises(UserError, match="did you mean 'image'"):
        find(space, [media], {"imag": "pic"})
    with pytest.raises(UserError, match=r"no-such"):
        find(space, [tmp_path / "no-such"])


def test_only_the_new_is_embedded(space, folder, files, tmp_path, monkeypatch):
    index, _ = add(space, new(space, folder), find(space, [files]), "hnsw")
    save_index(index, tmp_path / "index")
    index = open_index(tmp_path / "index", identity(folder))
    seen = count_encoded(space, monkeypatch)
    rows = digit_rows(8)
    (files / "6.png").write_bytes(rows[6]["image"]["bytes"])  # new
    (files / "copy.png").write_bytes(rows[0]["image"]["bytes"])  # known content at another place
    more, done = add(space, index, find(space, [files]))
    assert (sum(seen), done.new, done.gone, done.known) == (1, 1, 0, 18)
    assert more.items[:18] == index.items
    assert more.kinds == {"image": "hnsw", "text": "hnsw", "audio": "hnsw"}
    assert np.array_equal(more.vectors["image"][:6], index.vectors["image"])

    seen.clear()
    (files / "0.png").unlink()  # its content is still there, as copy.png
    (files / "1.png").unlink()  # gone
    (files / "2.png").write_bytes(rows[7]["image"]["bytes"])  # changed
    shutil.move(files / "3.png", files / "below" / "moved.png")
    save_index(more, tmp_path / "index")
    more, done = add(space, open_index(tmp_path / "index", identity(folder)), find(space, [files]))
    assert (sum(seen), done.new, done.gone) == (1, 1, 2)
    names = sorted(Path(i.place.file).name for i in more.items if i.modality == "image")
    assert names == ["2.png", "4.png", "5.png", "6.png", "copy.png", "moved.png"]
    tables: dict = {}
    for number, item in enumerate(more.items):  # vectors stay with their items
        value = cell_of(space, item, tables).value
        row = more.vectors[item.modality][more.numbers[item.modality].index(number)]
        value = value.read_text() if item.modality == "text" else value
        np.testing.assert_allclose(row, space.embed(item.modality, [value])[0].numpy(), atol=1e-5)
        ((hit,),) = hits(more, torch.from_numpy(np.array(row)), 1, [item.modality]).values()
        assert hit.score == pytest.approx(1, abs=1e-4)

    seen.clear()
    _, done = add(space, more, find(space, [files / "below"], only="audio"))  # the rest is left as it is
    assert (sum(seen), done.new, done.gone, done.known) == (0, 0, 0, 6)


def test_a_changed_file_is_not_shown_as_what_it_was(space, folder, files):
    index, _ = add(space, new(space, folder), find(space, [files / "0.png"]))
    (files / "0.png").write_bytes(digit_rows(2)[1]["image"]["bytes"])
    with pytest.raises(UserError, match="changed"):
        cell_of(space, index.items[0], {})
    (files / "0.png").unlink()
    with pytest.raises(UserError, match="changed"):
        cell_of(space, index.items[0], {})


@pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")
def test_links_pipes_and_an_index_in_the_folder(space, folder, files, tmp_path):
    os.symlink(tmp_path / "nowhere", files / "broken-link.png")
    os.symlink(files / "0.png", files / "link.png")
    os.symlink(files, files / "below" / "circle")
    os.mkfifo(files / "pipe.png")
    index, done = add(space, new(space, folder), find(space, [files]))
    save_index(index, files / "index")
    assert "broken-link.png" in {Path(place).name for place, _ in done.unreadable}
    assert len(index.items) == 18
    _, done = add(space, open_index(files / "index", identity(folder)), find(space, [tmp_path]))
    assert (done.new, done.known, done.gone) == (0, 18, 0)


@pytest.mark.skipif(os.name != "posix", reason="names that are no UTF-8")
def test_file_names_of_any_bytes(space, folder, tmp_path, capsys):
    (tmp_path / "media").mkdir()
    name = os.fsencode(tmp_path / "media") + b"/caf\xe9\n.png"
    Path(os.fsdecode(name)).write_bytes(digit_rows(1)[0]["image"]["bytes"])
    at = str(tmp_path / "index")
    assert (
        main(["search", str(folder), str(tmp_path / "media"), "--index", at, "-q", "text=one", "--json"]) == 0
    )
    index = open_index(tmp_path / "index", identity(folder))
    assert cell_of(space, index.items[0], {}).value.is_file()
    assert "caf" in json.loads(capsys.readouterr().out)["results"]["image"][0]["file"]


def test_terms():
    assert parse("text=a=b: c") == Term("text", "a=b: c", 1.0)
    assert parse("text:0.5=x", -1.0) == Term("text", "x", -0.5)
    assert parse("text=") == Term("text", "")
    for wrong in ("three", "text:=x", "text:-1=x", "text:nan=x", "text:inf=x", "text:0=x", "text:a=x", "=x"):
        with pytest.raises(UserError, match=r"weight|write MODALITY=VALUE"):
            parse(wrong)


def test_several_terms_are_one_vector(space, digits):
    picture = digit_rows(1)[0]["image"]["bytes"]
    a, b = space.embed("text", ["one", "two"])
    (c,) = space.embed("image", [picture])
    both = [Term("text", "one"), Term("image", picture)]
    torch.testing.assert_close(vector(space, both), a + c)
    torch.testing.assert_close(vector(space, both, "product"), a * c)
    weighted = [Term("text", "one", 2.0), Term("text", "two", -0.5), Term("image", picture)]
    torch.testing.assert_close(vector(space, weighted), 2 * a - 0.5 * b + c)
    candidates = space.embed("text", NAMES)
    queries = {"text": a[None], "image": c[None]}
    for how in ("sum", "product"):
        torch.testing.assert_close(
            candidates @ vector(space, both, how), space.score(queries, {"text": candidates}, how)[0]
        )
    for terms, how, words in [
        ([], None, "ask for something"),
        ([Term("text", "one"), Term("text", "one", -1.0)], None, "cancel"),
        (weighted, "product", "no weights"),
        ([Term("txt", "one")], None, "did you mean 'text'"),
        ([Term("text", "")], None, "cannot read"),
        (both, "mean", "sum"),
    ]:
        with pytest.raises(UserError, match=words):
            vector(space, terms, how)


def test_an_index_of_another_space_is_refused(space, folder, files, tmp_path, capsys):
    index, _ = add(space, new(space, folder), find(space, [files / "0.txt"]))
    save_index(index, tmp_path / "index")
    other = modalign.load(folder)
    with torch.no_grad():
        other.logit_scale += 1
    other.save(tmp_path / "other")
    with pytest.raises(UserError, match="another space"):
        open_index(tmp_path / "index", identity(tmp_path / "other"))
    before = (tmp_path / "index" / "index.json").read_bytes()
    for rest in (["-q", "text=one"], [str(files)]):
        assert main(["search", str(tmp_path / "other"), "--index", str(tmp_path / "index"), *rest]) == 2
        assert "another space" in capsys.readouterr().err
    assert (tmp_path / "index" / "index.json").read_bytes() == before


def test_written_whole_or_not_at_all(space, folder, files, tmp_path, monkeypatch):
    mark = identity(folder)
    index, _ = add(space, new(space, folder), find(space, [files / "0.txt"]))
    save_index(index, tmp_path / "index")
    more, _ = add(space, open_index(tmp_path / "index", mark), find(space, [files]))
    monkeypatch.setattr("modalign.search.index_files._read_items", None)
    monkeypatch.setattr(np, "save", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_index(more, tmp_path / "index")
    monkeypatch.undo()
    assert open_index(tmp_path / "index", mark).items == index.items
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index", "media"]

    os.replace(tmp_path / "index", tmp_path / ".index.old")  # killed between the two moves
    assert open_index(tmp_path / "index", mark).items == index.items
    save_index(more, tmp_path / "index")
    with pytest.raises(UserError, match="another process"):  # it knows the version before
        save_index(index, tmp_path / "index")
    assert len(open_index(tmp_path / "index", mark).items) == 18
    with pytest.raises(UserError, match="something else"):
        save_index(index, files)


@pytest.mark.parametrize(
    "damage", ["index.json", "items.parquet", "0.npy", "1.npy", "0.faiss", "cut", "short"]
)
def test_damage_is_named(space, folder, files, tmp_path, damage):
    index, _ = add(space, new(space, folder), find(space, [files]), "hnsw")
    save_index(index, tmp_path / "index")
    if damage == "cut":
        (tmp_path / "index" / "0.npy").write_bytes((tmp_path / "index" / "0.npy").read_bytes()[:-8])
    elif damage == "short":
        np.save(tmp_path / "index" / "0.npy", np.zeros((2, 16), np.float32))
    else:
        (tmp_path / "index" / damage).write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"damaged.*index again"):
        open_index(tmp_path / "index", identity(folder))
    pickled = tmp_path / "index" / "0.npy"
    np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        open_index(tmp_path / "index", identity(folder))


def test_on_the_command_line(folder, files, in_tmp, capsys):
    shutil.copytree(folder, "space")
    assert main(["search", "space", "-q", "text=one"]) == 2
    assert "not an index" in capsys.readouterr().err
    assert main(["search", "space", str(files), "--to", "image", "-q", "text=one", "-k", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "image"
    assert len(out.splitlines()) == 3
    assert "18 new, 0 known" in err
    assert "broken.png" in err
    assert (
        main(["search", "space", "-q", f"image={files / '0.png'}", "--minus", "text:0.1=one", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["index"]["items"] == {"image": 6, "audio": 6, "text": 6}
    assert found["results"]["image"][0]["file"] == str(files / "0.png")
    assert "added" not in found
    for arguments, words in [
        ([], "--query"),
        (["-q", "one"], "MODALITY=VALUE"),
        (["-q", "txt=one"], "did you mean 'text'"),
        (["-q", "text=one", "--to", "imge"], "did you mean 'image'"),
        (["-q", "image=no.png"], "no.png"),
        (["-q", "text=one", "--kind", "flat"], "for indexing"),
        ([str(files), "--kind", "flt"], "did you mean 'flat'"),
        ([str(files), "--as", "imge"], "did you mean 'image'"),
        ([str(files), "--column", "image"], "MODALITY=COLUMN"),
        (["-q", "text=one", "--minus", "text=two", "--combine", "product"], "no weights"),
    ]:
        assert main(["search", "space", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert words in err
        assert out == ""


def test_an_empty_folder(folder, in_tmp, capsys):
    Path("empty").mkdir()
    assert main(["search", str(folder), "empty", "--index", "index"]) == 0
    assert "no items" in capsys.readouterr().err
    assert main(["search", str(folder), "--index", "index", "-q", "text=one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == {}


def test_without_faiss(folder, in_tmp, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert main(["search", str(folder), ".", "--index", "index"]) == 2
    assert "pip install 'modalign[search]'" in capsys.readouterr().err
    assert not Path("index").exists()


def test_a_large_table_stays_one_item_per_content(space, folder, tmp_path):
    rows = [{"text": NAMES[i % 10]} for i in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    index, done = add(space, new(space, folder), find(space, [tmp_path / "t.parquet"]))
    assert (done.new, done.known, len(index.items)) == (10, 0, 10)
