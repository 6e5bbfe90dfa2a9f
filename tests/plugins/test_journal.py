"""The journal on its own: a change that is cut short after any number of steps is undone."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.plugin import environment, files, journal

OLD = {"pkg/__init__.py": "old", "pkg/gone.py": "x = 1", "pkg/data/a.txt": "a"}
NEW = {"pkg/__init__.py": "new", "pkg/data/b.txt": "b", "pkg/more/c.py": "c = 1"}


@contextmanager
def prefix() -> Iterator[Path]:
    """The site-packages of an environment that is only a folder; it holds something to leave alone."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        site = Path(name) / "site"
        (site / "other").mkdir(parents=True)
        (site / "other" / "untouched.py").write_text("x = 1")
        where = dict.fromkeys(("purelib", "platlib"), site)
        where |= {key: Path(name) / key for key in ("scripts", "data", "headers")}
        patch.setattr(sys, "prefix", name)
        patch.setattr(environment, "paths", lambda: where)
        for module in (files, journal):
            patch.setattr(module, "paths", lambda: where)
        patch.syspath_prepend(str(site))
        yield site


def distribution(site: Path, version: str, content: dict[str, str]) -> dict[Path, str]:
    """Every file that an installer writes."""
    info = f"pkg-{version}.dist-info"
    names = [*content, f"{info}/METADATA", f"{info}/RECORD"]
    texts = {
        **content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: pkg\nVersion: {version}\n",
        f"{info}/RECORD": "".join(f"{name},,\n" for name in names),
    }
    return {site / name: texts[name] for name in names}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def snapshot(folder: Path) -> dict[str, str]:
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else "" for path in found}


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_replacement_cut_short_anywhere_is_undone(data):
    with prefix() as site:
        old, new = distribution(site, "1.0", OLD), distribution(site, "2.0", NEW)
        for path, text in old.items():
            write(path, text)
        before = snapshot(site)
        journal.begin("install pkg 2.0", [("pkg", "2.0", list(new))], ["pkg"])
        removals = data.draw(st.permutations(sorted(old)))
        additions = data.draw(st.permutations(sorted(new)))
        for done in range(data.draw(st.integers(0, len(removals) + len(additions)))):
            if done < len(removals):
                removals[done].unlink()
            else:
                path = additions[done - len(removals)]
                write(path, new[path])
        if data.draw(st.booleans()):
            write(site / "pkg-2.0.dist-info" / "RECORDx1y2.tmp", "an installer's temporary file")
        importlib.invalidate_caches()
        state = journal.pending()
        assert state is not None
        assert journal.roll_back(state) == []
        assert snapshot(site) == before
        assert journal.pending() is None


@pytest.mark.parametrize("link", ["_editable_impl_pkg_one.pth", "__editable__.pkg_one-2.0.pth", "__editable___pkg_one_2_0_finder.py", "pkg_one.pth"])  # fmt: skip
def test_a_link_without_a_record_goes_and_its_namesakes_stay(link):
    with prefix() as site:
        state = journal.begin("install pkg-one 2.0", [("pkg-one", "2.0", [])], [])
        before = snapshot(site)
        write(site / link, "/somewhere")
        write(
            site / "pkg_one-2.0.dist-info" / "METADATA",
            "Metadata-Version: 2.1\nName: pkg-one\nVersion: 2.0\n",
        )
        kept = ["_editable_impl_pkg_one_more.pth", "pkg_one_more.pth", "my_pkg_one.pth"]
        for name in kept:
            write(site / name, "another's")
        assert journal.roll_back(state) == []
        assert snapshot(site) == {**before, **dict.fromkeys(kept, "another's")}


def test_a_journal_never_reaches_outside():
    with prefix() as site, tempfile.TemporaryDirectory() as elsewhere:
        outside = Path(elsewhere) / "mine.txt"
        outside.write_text("x")
        journal.roll_back(
            journal.begin("x", [("pkg", "1.0", [outside, site / ".." / ".." / "mine.txt"])], [])
        )
        assert outside.exists()


def test_a_damaged_journal_is_said_and_stops_no_verb(capsys):
    from modalign.cli.plugins.recover import recover

    with prefix():
        journal.begin("x", [], [])
        journal.journal_file().write_text("{")
        recover()
        assert "cannot be read" in capsys.readouterr().err
