"""Reports: their sections, captions made of labels, and the text plugin's batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample, UserError
from modalign_medical.report import ClinicalReport
from modalign_medical.report_sections import sections

torch.set_num_threads(1)
LONG = """FINAL REPORT
EXAMINATION:  CHEST (PA AND LAT)

INDICATION: A patient with cough.

Technique: Two views.
Findings:
The lungs are clear. Note: no effusion.
DEVICES: none.

IMPRESSION: No acute process.
"""
FLAT = "HISTORY: fever. FINDINGS: Clear lungs. IMPRESSION: Normal chest."


def decode(batch):
    return [bytes(row[m].tolist()).decode() for row, m in zip(batch["bytes"], batch["mask"], strict=True)]


def test_sections_of_reports_of_several_lines_and_of_one():
    found = sections(LONG)
    assert [name for name, _ in found] == [
        None,
        "examination",
        "history",
        "technique",
        "findings",
        "impression",
    ]
    assert dict(found)["findings"] == "The lungs are clear. Note: no effusion.\nDEVICES: none."
    assert sections(FLAT) == [
        ("history", "fever."),
        ("findings", "Clear lungs."),
        ("impression", "Normal chest."),
    ]
    assert sections("MYFINDINGS: x") == [(None, "MYFINDINGS: x")]
    assert sections("We saw findings: two nodules") == [(None, "We saw findings: two nodules")]


def test_only_the_wanted_sections_are_kept():
    report = ClinicalReport(sections=["findings", "impression"])
    kept = report.read(LONG)
    assert "clear" in kept
    assert "acute" in kept
    assert "cough" not in kept
    assert "FINAL REPORT" not in kept
    assert ClinicalReport(sections=["impression"]).read(FLAT) == "Normal chest."
    assert report.read("Clear lungs.") == "Clear lungs."  # nothing to go by: all of it
    assert ClinicalReport().read(LONG) == LONG.strip()
    with pytest.raises(
        BadSample, match="none of the sections technique; it has findings, history, impression"
    ):
        ClinicalReport(sections=["technique"]).read(FLAT)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_splits_without_loss_of_words(text):
    parts = sections(text)
    assert "".join("".join(t for _, t in parts).split()) in "".join(text.split()) or len(parts) > 1
    for _, part in parts:
        assert part in text


def test_files_and_encodings(tmp_path):
    path = tmp_path / "r.txt"
    path.write_bytes("\ufeffLungs clear, Ångström".encode())
    assert ClinicalReport().read(path) == "Lungs clear, Ångström"
    for bad in (b"", b"\xff\xfe", "", "  ", "\ud800", 7, None, tmp_path / "none.txt", tmp_path):
        with pytest.raises(BadSample) as caught:
            ClinicalReport().read(bad)
        assert str(tmp_path) not in str(caught.value)


def test_labels_become_captions_and_augment_draws_another():
    report = ClinicalReport(templates=["a chest x-ray of {}", "{} is seen", "radiograph showing {}, ünïcødé"])
    batch = report.collate([report.read("pneumonia"), report.read("no finding")])
    assert decode(batch) == ["a chest x-ray of pneumonia", "a chest x-ray of no finding"]
    assert report.preview("pneumonia")[1] == b"a chest x-ray of pneumonia"
    many = report.collate(["pneumonia"] * 90)
    seen = decode(report.augment(many, torch.Generator().manual_seed(0)))
    assert {seen.count(t.format("pneumonia")) > 15 for t in report.templates} == {True}
    assert len(set(seen)) == 3


def test_augment_leaves_out_sentences_but_never_all():
    text = "One is clear. Two is normal! Is three? Four; five.\nSix."
    report = ClinicalReport(drop=0.6)
    batch = report.collate([text] * 60 + ["short"])
    out = decode(report.augment(batch, torch.Generator().manual_seed(1)))
    assert out[-1] == "short"
    assert len(set(out)) > 10
    known = {"One is clear.", "Two is normal!", "Is three?", "Four;", "five.", "Six."}
    for one in out[:-1]:
        assert one
        assert any(k in one for k in known)
    assert decode(batch)[0] == text
    assert torch.equal(ClinicalReport().augment(batch, torch.Generator())["bytes"], batch["bytes"])


def test_long_texts_are_cut_at_a_character():
    assert decode(ClinicalReport(max_bytes=7).collate(["ååååå"])) == ["ååå"]


def test_the_text_plugins_encoder_reads_reports():
    cnn = pytest.importorskip("modalign_text.char_cnn").CharCNN(16, layers=1)
    decoded = pytest.importorskip("modalign_text.modality").decode
    report = ClinicalReport(templates=["a scan of {}", "{}"])
    batch = report.collate(["ünïcødé", "b"])
    assert cnn(batch).tokens.shape[0] == 2
    assert decoded(batch) == ["a scan of ünïcødé", "a scan of b"]


@pytest.mark.parametrize(
    "bad",
    [
        {"sections": ["lungs"]},
        {"sections": []},
        {"templates": ["no slot"]},
        {"templates": []},
        {"max_bytes": 3},
        {"drop": 1.0},
    ],
)
def test_arguments_out_of_range(bad):
    with pytest.raises(UserError, match="report"):
        ClinicalReport(**bad)
