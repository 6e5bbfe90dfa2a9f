"""Where embeddings may not be written is said at once, before a space is loaded or anything is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign.cli.main import main
from modalign.errors import UserError
from modalign.training.embedding.out import check_out


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], out: str, *what: str) -> str:
    """What is said of ``--out``; the space is not even looked for."""
    assert main(["embed", "no-space", "text", *what, "--out", out]) == 2
    return capsys.readouterr().err


def test_a_file_of_a_folder_that_is_embedded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/cat/1.txt").write_text("a cat")
    assert "is read as part of --table" in refused(capsys, "pets/cat/1.txt", "--table", "pets")
    for new in ("pets/cat/2.txt", "pets/z.parquet", "pets-1.txt"):
        Path(new).touch(exist_ok=new.endswith(".parquet"))
        if new == "pets/cat/2.txt":
            Path(new).unlink()
        assert check_out(Path(new), "pets") == tmp_path / new  # new, an earlier run's, or elsewhere


def test_a_table_that_the_quarantine_would_replace(capsys: pytest.CaptureFixture[str]) -> None:
    Path("z.parquet.quarantine.csv").write_text("text\na\n")
    assert "would be lost" in refused(capsys, "z.parquet", "--table", "z.parquet.quarantine.csv")
    assert check_out(Path("z.parquet"), "other.csv").name == "z.parquet"  # it is an earlier run's


def test_one_of_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.txt").write_text("a")
    os.link("a.txt", "b.txt")
    for out in ("a.txt", "./a.txt", "b.txt"):
        assert "is one of the values" in refused(capsys, out, "x" * 5000, "a.txt")
    assert Path("a.txt").read_text() == "a"
    assert check_out(Path("c.txt"), values=["a.txt"]).name == "c.txt"


@pytest.mark.parametrize("what", [("a text",), ("--table", "t.parquet")])
@pytest.mark.parametrize("out", ["t.parquet/z.parquet", "t.parquet/new/z.parquet", "z" * 250])
def test_what_no_file_can_be_called(
    out: str, what: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"text": ["a"]}), "t.parquet")
    said = refused(capsys, out, *what)
    assert "cannot be written" in said
    assert len(said) < 200
    assert os.listdir() == ["t.parquet"]
    with pytest.raises(UserError, match="cannot be written: embedded null"):
        check_out(Path("z\0z"))


def test_what_is_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    Path("z.parquet.quarantine.csv").mkdir()
    assert "in the way" in refused(capsys, "pipe", "a text")
    assert "z.parquet.quarantine.csv is in the way" in refused(capsys, "z.parquet", "--table", "t.csv")
    assert check_out(Path("z.parquet")).name == "z.parquet"  # values leave no quarantine


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match="is not yours to write in"):
        check_out(Path("new/folder/z.parquet"))
