"""The text modality: what it reads, what it refuses, what a batch holds."""

import pickle
import re
import subprocess
import sys
import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample
from modalign_text.modality import Text, decode

torch.set_num_threads(1)
TEXT = Text()
printable = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda s: s.strip())


@given(printable)
def test_strings_bytes_and_files_read_alike(value):
    item = TEXT.read(value)
    assert item == TEXT.read(value.encode("utf-8")) or value.startswith("\ufeff")
    assert unicodedata.is_normalized("NFC", item)
    assert item == item.strip() != ""


def test_a_file_and_its_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf  caf\xc3\xa9\n")
    assert TEXT.read(path) == "café"
    assert TEXT.read("e\u0301") == TEXT.read("\u00e9")


@given(st.binary(max_size=64))
def test_any_bytes_are_text_or_a_bad_sample(data):
    try:
        item = TEXT.read(data)
    except BadSample:
        return
    assert decode(TEXT.collate([item])) == [item]


@pytest.mark.parametrize("value", ["", "  \n\t ", b"", b"\xff\xfe\x00", "\ud800", None, 7, 1.5, ["a"], {}])
def test_what_is_no_text_is_a_bad_sample(value):
    with pytest.raises(BadSample):
        TEXT.read(value)


def test_a_missing_file_is_a_bad_sample(tmp_path):
    with pytest.raises(BadSample, match="nowhere"):
        TEXT.read(tmp_path / "nowhere.txt")


@given(st.lists(printable.map(TEXT.read), min_size=1, max_size=8))
def test_a_batch_gives_the_strings_back(items):
    batch = TEXT.collate(items)
    assert batch["bytes"].dtype == torch.uint8
    assert batch["mask"].dtype == torch.bool
    assert batch["bytes"].shape == batch["mask"].shape
    assert not batch["bytes"][~batch["mask"]].any()
    assert decode(batch) == items


@given(printable, st.integers(4, 40))
def test_long_texts_are_cut_at_a_character(text, max_bytes):
    modality = Text(max_bytes)
    [cut] = decode(modality.collate([text]))
    assert text.startswith(cut)
    assert cut
    kept, whole = len(cut.encode()), len(text.encode())
    assert kept == whole or max_bytes - 3 <= kept <= max_bytes


def test_max_bytes_must_hold_a_character():
    with pytest.raises(ValueError, match="max_bytes"):
        Text(3)


@given(st.integers(0, 40), st.integers(0, 2**32))
@settings(max_examples=20)
def test_examples_are_readable_and_depend_on_the_seed_alone(n, seed):
    items = TEXT.example(n, seed)
    assert items == pickle.loads(pickle.dumps(TEXT)).example(n, seed)
    assert [TEXT.read(i) for i in items] == items
    assert len(items) == n


def test_examples_vary():
    assert len(set(TEXT.example(14, 0)) | set(TEXT.example(14, 1))) > 20
    assert len({unicodedata.name(c).split()[0] for t in TEXT.example(14) for c in t if c.isalpha()}) >= 5


def test_declarations_import_nothing_heavy():
    code = (
        "import modalign_text, sys; modalign_text.register_encoders();"
        "heavy = ('torch', 'transformers', 'numpy', 'PIL', 'tokenizers');"
        "sys.exit(str([m for m in heavy if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


@given(printable)
def test_a_preview_is_the_text_as_far_as_it_is_read(value):
    short = Text(max_bytes=5)
    kind, content = short.preview(short.read(value))
    assert kind == "text/plain"
    assert TEXT.read(value).startswith(content.decode("utf-8"))
    assert len(content) <= 5
    assert TEXT.preview(TEXT.read(value))[1].decode("utf-8") == TEXT.read(value)


@given(st.lists(st.text("abc é語", min_size=1).filter(str.strip), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=50)
def test_text_dropout_keeps_whole_pieces_and_at_least_one(pieces, seed):
    text = Text(pieces="line")
    item = text.read("\n".join(p.strip() for p in pieces))
    (found,) = decode(text.augment(text.collate([item]), torch.Generator().manual_seed(seed)))
    kept, given_ = found.split("\n"), item.split("\n")
    assert kept
    assert all(kept.count(p) <= given_.count(p) for p in kept)


def test_text_dropout_drops_about_its_share_and_reorders():
    text = Text(drop=0.25, pieces="clause")
    batch = text.collate(["one, two; three. four"] * 400)
    found = [re.findall(r"\w+", t) for t in decode(text.augment(batch, torch.Generator().manual_seed(0)))]
    assert {word for words in found for word in words} == {"one", "two", "three", "four"}
    assert abs(sum(map(len, found)) / 1600 - 0.75) < 0.04
    assert len({tuple(words) for words in found}) > 30


def test_text_of_one_piece_stays():
    batch = TEXT.collate(["no end in sight", "語"])
    assert decode(TEXT.augment(batch, torch.Generator())) == ["no end in sight", "語"]
