"""The catalogue: what an entry may say, and that every broken rule is an error with its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign.plugin import registry

LISTED = {"summary": "Point clouds", "trust": "listed", "requirement": "acme-b>=0.2,<0.3"}


def write(folder: Path, plugins: object, schema: object = 1, **more: object) -> Path:
    path = folder / "registry.yaml"
    path.write_text(yaml.safe_dump({"schema": schema, "plugins": plugins, **more}, sort_keys=False))
    return path


def test_our_own_catalogue_is_valid():
    found = registry.entries()
    assert [entry.distribution for entry in found] == sorted(entry.distribution for entry in found)
    assert {"modalign-audio", "modalign-image", "modalign-text"} <= {entry.distribution for entry in found}


def test_every_field_arrives(tmp_path):
    given = {
        **LISTED, "trust": "reviewed", "homepage": "https://example.org/b", "version": "0.2.1",
        "sha256": "ab" * 32, "needs": ["numpy"], "provides": {"losses": ["x", "y"], "modalities": ["lidar"]},
    }  # fmt: skip
    (entry,) = registry.entries(write(tmp_path, {"acme-b": given}))
    assert entry.distribution == "acme-b"
    assert entry.provides == {"losses": ("x", "y"), "modalities": ("lidar",)}
    assert entry.needs == ("numpy",)
    assert {key: getattr(entry, key) for key in given if key not in ("needs", "provides")} == {
        key: value for key, value in given.items() if key not in ("needs", "provides")
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sumary": "x"}, "did you mean 'summary'"),
        ({"summary": None}, "one line"),
        ({"summary": "two\nlines"}, "one line"),
        ({"trust": "official"}, "core, reviewed, listed"),
        ({"trust": "core"}, "goes with source"),
        ({"source": "plugins/b"}, "goes with requirement"),
        ({"trust": "reviewed"}, "version"),
        ({"requirement": "acme-b @ https://example.org/b.whl"}, "URL"),
        ({"requirement": "acme-b @ git+https://example.org/b"}, "URL"),
        ({"requirement": "https://example.org/b.whl"}, "not a requirement"),
        ({"requirement": "--index-url x acme-b"}, "not a requirement"),
        ({"requirement": "other>=1"}, "acme-b"),
        ({"requirement": "acme-b[all]"}, "versions only"),
        ({"requirement": "acme-b; python_version > '3'"}, "versions only"),
        ({"version": 0.2}, "quote"),
        ({"version": "new"}, "not a version"),
        ({"sha256": "ab" * 32}, "version"),
        ({"version": "1", "sha256": "abc"}, "64"),
        ({"homepage": "javascript:alert(1)"}, "https"),
        ({"provides": {"loses": ["x"]}}, "did you mean 'losses'"),
        ({"provides": {"losses": ["y", "x"]}}, "alphabetical"),
        ({"provides": {"losses": "x"}}, "list"),
        ({"provides": ["x"]}, "map"),
        ({"needs": "torch"}, "list"),
    ],
)
def test_a_broken_rule_is_an_error_with_its_line(tmp_path, change, words):
    entry = {**LISTED, **change}
    path = write(tmp_path, {"acme-a": {**LISTED, "requirement": "acme-a"}, "acme-b": entry})
    with pytest.raises(UserError, match=words) as caught:
        registry.entries(path)
    line = int(str(caught.value).split(", line ")[1].split(":")[0])
    lines = path.read_text().splitlines()
    assert line >= lines.index("  acme-b:") + 1
    text = lines[line - 1]
    assert any(key in text for key in [*change, *change.get("provides", ()), "trust"])


@pytest.mark.parametrize("path", ["/etc", "../plugins/b", "plugins/../../b", "https://example.org", ""])
def test_source_stays_inside_the_repository(tmp_path, path):
    entry = {"summary": "s", "trust": "core", "source": path}
    with pytest.raises(UserError, match="source"):
        registry.entries(write(tmp_path, {"acme-b": entry}))


def test_the_file_as_a_whole(tmp_path):
    entry = {"summary": "s", "trust": "listed"}
    pair = {name: {**entry, "requirement": name} for name in ("acme-b", "acme-a")}
    with pytest.raises(UserError, match=r"line \d+: acme-a must come before acme-b"):
        registry.entries(write(tmp_path, pair))
    with pytest.raises(UserError, match="normal form"):
        registry.entries(write(tmp_path, {"Acme_B": LISTED}))
    with pytest.raises(UserError, match="upgrade"):
        registry.entries(write(tmp_path, {}, schema=2))
    with pytest.raises(UserError, match="did you mean 'plugins'"):
        registry.entries(write(tmp_path, {}, plugin={}))
    for text in ("", "[]", "schema: 1", "plugins: []\nschema: 1", "a: [", "plugins: {a: 1}\nschema: 1"):
        (tmp_path / "registry.yaml").write_text(text)
        with pytest.raises(UserError):
            registry.entries(tmp_path / "registry.yaml")
    (tmp_path / "registry.yaml").write_text("schema: 1\nplugins:\n  a: {}\n  a: {}\n")
    with pytest.raises(UserError, match="line 4: a comes twice, first in line 3"):
        registry.entries(tmp_path / "registry.yaml")
    (tmp_path / "registry.yaml").write_text("schema: 1\nplugins: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError):
        registry.entries(tmp_path / "registry.yaml")


names = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4})?", fullmatch=True)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(names, st.lists(names, unique=True, max_size=3), max_size=5))
def test_what_is_written_is_read_and_found(tmp_path_factory, offered):
    plugins = {
        who: {"summary": "s", "trust": "listed", "requirement": who, "provides": {"tasks": sorted(what)}}
        for who, what in sorted(offered.items())
    }
    path = write(tmp_path_factory.mktemp("catalogue"), plugins)
    assert {e.distribution: sorted(e.provides["tasks"]) for e in registry.entries(path)} == {
        who: sorted(what) for who, what in offered.items()
    }
    for name in {name for what in offered.values() for name in what}:
        expected = sorted(who for who, what in offered.items() if name in what)
        assert [entry.distribution for entry in registry.providers("tasks", name, path)] == expected
        full = registry.providers("tasks", f"{expected[0]}:{name}", path)
        assert [entry.distribution for entry in full] == expected[:1]
        assert registry.providers("losses", name, path) == []


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("MODALIGN_REGISTRY", raising=False)
    root = Path(registry.__file__).parents[3]
    if (root / "registry.yaml").is_file():
        assert registry.layers() == [root / "registry.yaml"]
    (own,) = registry.layers()
    mine, other, third = write(tmp_path, {}), tmp_path / "other.yaml", tmp_path / "third.yaml"
    for copy in (other, third):
        copy.write_text(mine.read_text())
    monkeypatch.setenv("MODALIGN_REGISTRY", os.pathsep.join([str(mine), "", str(third)]))
    assert registry.layers() == [mine, third, own]
    assert registry.layers(other) == [other, mine, third, own]
    with pytest.raises(UserError, match="nowhere"):
        registry.layers(tmp_path / "nowhere.yaml")
    monkeypatch.setenv("MODALIGN_REGISTRY", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(UserError, match="MODALIGN_REGISTRY"):
        registry.layers()
    monkeypatch.delenv("MODALIGN_REGISTRY")
    package = tmp_path / "site-packages" / "modalign"  # as in a wheel: next to the modules
    monkeypatch.setattr(registry, "__file__", str(package / "plugin" / "registry.py"))
    assert registry.layers() == [package / "registry.yaml"]


def test_of_two_layers_the_first_decides(tmp_path, monkeypatch):
    above, below = tmp_path / "above", tmp_path / "below"
    for folder in (above, below):
        folder.mkdir()
    first = write(above, {"acme-b": {**LISTED, "summary": "ours"}})
    second = write(below, {"acme-a": {**LISTED, "requirement": "acme-a"}, "acme-b": LISTED})
    monkeypatch.setenv("MODALIGN_REGISTRY", f"{first}{os.pathsep}{second}")
    found = {entry.distribution: entry for entry in registry.entries()}
    assert found["acme-b"].summary == "ours"
    assert found["acme-b"].file == first
    assert found["acme-a"].file == second
    assert "modalign-text" in found  # our own catalogue is always the lowest
    assert list(found) == sorted(found)
    second.write_text("schema: 1\nplugins: {acme-c: 1}")
    with pytest.raises(UserError, match=r"below.registry.yaml, line 2"):
        registry.entries()


def test_a_core_entry_has_a_folder_only_where_its_catalogue_lies_in_a_checkout(tmp_path):
    entry = {"summary": "s", "trust": "core", "source": "plugins/b"}
    path = write(tmp_path, {"acme-b": entry})
    assert registry.entries(path)[0].folder is None
    (tmp_path / "plugins" / "b").mkdir(parents=True)
    (tmp_path / "plugins" / "b" / "pyproject.toml").touch()
    assert registry.entries(path)[0].folder == tmp_path / "plugins" / "b"
