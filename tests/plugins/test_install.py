"""Installing and removing plugins in fresh environments: what works, what is asked and said."""

from __future__ import annotations

import json

import pytest

FLIPPED = """
import torch
from modalign import Loss
from modalign.losses import InfoNCE


class Flipped(Loss):
    def forward(self, z):
        return -InfoNCE()(z)
"""


def rows(environment):
    return {row["distribution"]: row for row in json.loads(environment.plugins("list", "--json").stdout)}


def test_a_plugin_comes_and_goes(environment, wheel):
    before = environment.state()
    done = environment.plugins("install", wheel("acme-one"), "--yes")
    assert done.returncode == 0, done.stderr
    assert "installed acme-one 1.0: 13 checks passed" in done.stdout
    assert rows(environment)["acme-one"]["ok"]
    assert "acme-one:acme-one-loss" in environment.modalign("list", "losses").stdout
    done = environment.plugins("uninstall", "acme-one", "--yes")
    assert (done.returncode, done.stdout) == (0, "uninstalled acme-one 1.0\n")
    assert environment.state() == before


@pytest.mark.slow
def test_up_and_down_and_what_is_there_already(environment, wheel, catalogue):
    old, new = wheel("acme-one", version="1.0"), wheel("acme-one", version="2.0")
    entry = {
        "summary": "s", "trust": "listed", "requirement": "acme-one>=1", "needs": ["torch", "acme-far"],
        "provides": {"losses": ["acme-one-loss"]},
    }  # fmt: skip
    flags = ("--registry", catalogue(acme_one=entry), "--yes", "--json")
    first = environment.plugins("install", "acme-one<2", *flags)
    assert json.loads(first.stdout)["installed"] == {"acme-one": "1.0"}, first.stderr
    for words in (
        "listed: its name is reserved",
        "acme-one<2,>=1 from the package index",
        "registry.yaml says",
    ):
        assert words in first.stderr
    assert "torch (2." in first.stderr
    assert "acme-far (not installed yet)" in first.stderr
    again = environment.plugins("install", "acme-one", *flags)
    assert json.loads(again.stdout) == {
        "installed": {},
        "checks": {},
        "changes": [],
        "already": ["acme-one 1.0"],
    }
    up = environment.plugins("install", "acme-one", "--upgrade", *flags)
    assert json.loads(up.stdout)["changes"] == ["acme-one 1.0 becomes 2.0"], up.stderr
    assert rows(environment)["acme-one"]["version"] == "2.0"
    down = environment.plugins("install", old, *flags)
    assert json.loads(down.stdout)["installed"] == {"acme-one": "1.0"}, down.stderr
    assert rows(environment)["acme-one"]["version"] == "1.0"
    assert new.exists()


@pytest.mark.slow
def test_a_linked_folder_and_one_that_fails(environment, tmp_path):
    folder = tmp_path / "acme-linked"
    (folder / "acme_linked").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "acme-linked"\nversion = "0.1"\ndependencies = ["modalign>=0.1,<0.2"]\n'
        '[project.entry-points."modalign.plugins"]\nlinked = "acme_linked"\n'
    )
    module = folder / "acme_linked" / "__init__.py"
    module.write_text("raise RuntimeError('not yet')")
    before = environment.state()
    done = environment.plugins("install", "-e", folder, "--yes")
    assert done.returncode == 1
    assert "not yet" in done.stderr
    assert environment.state() == before
    module.write_text("from modalign import Component, hookimpl\n@hookimpl\ndef register_losses():\n"
                      "    return [Component('mine', 'modalign.losses.infonce:InfoNCE', 's')]\n")  # fmt: skip
    done = environment.plugins("install", "-e", folder, "--yes")
    assert done.returncode == 0, done.stderr
    module.write_text(module.read_text().replace("mine", "renamed"))
    assert rows(environment)["acme-linked"]["components"] == {"losses": ["renamed"]}
    assert environment.plugins("uninstall", "acme-linked", "--yes").returncode == 0
    assert environment.state() == before
    assert module.exists()


@pytest.mark.slow
def test_from_the_catalogue_with_the_checkout_as_source(environment):
    before = environment.state()
    found = environment.plugins("search", "pictures")
    assert found.stdout.startswith("modalign-image")
    assert "installed" not in found.stdout
    done = environment.plugins("install", "image", "--yes")
    assert done.returncode == 0, done.stderr
    assert "core: part of modalign's own repository" in done.stderr
    assert "plugins/image" in done.stderr
    assert "installed: 0.1.0" in environment.plugins("search", "pictures").stdout
    check = json.loads(environment.plugins("check", "image", "--json").stdout)
    assert [(row["distribution"], row["ok"], row["declared_only"]) for row in check] == [
        ("modalign-image", True, ["hf-image"])
    ]
    assert environment.plugins("uninstall", "image", "--yes").returncode == 0
    assert environment.state() == before


def test_nobody_is_asked_twice_and_nobody_there_means_no(environment, wheel):
    before = environment.state()
    done = environment.plugins("install", wheel("acme-one"))
    assert done.returncode == 2
    assert "trust   yours" in done.stderr
    assert "runs its code with your rights" in done.stderr
    assert "--yes" in done.stderr
    assert environment.state() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["install", "acme-nowhere"], "install --unlisted 'acme-nowhere'"),
        (["install", "modalign-imgae"], "did you mean 'modalign-image'"),
        (["install"], "plugins search"),
        (["install", "./plugins/image"], "-e PATH"),
        (["install", "-e", "no/such/folder"], "pyproject.toml"),
        (["install", "no-such.whl"], "no wheel"),
        (["install", "modalign-image @ https://example.org/x.whl"], "no URL"),
        (["install", "--unlisted", "--index-url=x"], "is not a name with versions"),
        (["install", "image", "modalign-image"], "twice"),
        (["install", "--registry", "nowhere.yaml", "image"], "nowhere.yaml"),
        (["uninstall", "acme-nowhere"], "not installed in this environment"),
        (["uninstall", "modalign"], "modalign"),
        (["uninstall", "pip"], "not installed in this environment"),
        (["check", "acme-nowhere"], "no plugin acme-nowhere is installed"),
    ],
)
def test_wrong_input_is_status_2_and_changes_nothing(environment, arguments, words):
    done = environment.plugins(*arguments, *(["--yes"] if arguments[0] != "check" else []))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stdout == ""
    assert not (environment.root / "env" / ".modalign" / "journal.json").exists()


@pytest.mark.slow
def test_names_are_reserved(environment, wheel, catalogue):
    """What the catalogue or the core gives one plugin, no other takes; listing it too allows it."""
    from_core = wheel("acme-core", code=offering_of("infonce"))
    other = wheel("acme-other", code=offering_of("far-loss"))
    before = environment.state()
    done = environment.plugins("install", from_core, "--yes")
    assert done.returncode == 1
    assert "'infonce', a name that is reserved for modalign" in done.stderr
    listed = {"summary": "s", "trust": "listed", "provides": {"losses": ["far-loss"]}}
    file = catalogue(acme_far={**listed, "requirement": "acme-far"})
    done = environment.plugins("install", other, "--yes", "--registry", file)
    assert done.returncode == 1
    assert "reserved for acme-far" in done.stderr
    assert environment.state() == before
    both = {
        "acme_far": {**listed, "requirement": "acme-far"},
        "acme_other": {**listed, "requirement": "acme-other"},
    }
    done = environment.plugins("install", other, "--yes", "--registry", catalogue(**both))
    assert done.returncode == 0, done.stderr


def offering_of(name: str) -> str:
    return (
        "from modalign import Component, hookimpl\n@hookimpl\ndef register_losses():\n"
        f"    return [Component({name!r}, 'modalign.losses.infonce:InfoNCE', 'from a test')]\n"
    )


def test_check_says_which_checks_fail_and_outlives_a_crash(environment, wheel):
    code = offering_of("flipped").replace("modalign.losses.infonce:InfoNCE", "acme_bad.flipped:Flipped")
    unpack(environment, wheel("acme-bad", code=code, files={"acme_bad/flipped.py": FLIPPED}))
    unpack(environment, wheel("acme-dies", code="import os, sys\nif sys.argv[-1] == 'acme-dies':\n    os._exit(7)\n" + offering_of("x")))  # fmt: skip
    done = environment.plugins("check", "acme-bad", "acme-dies", "--json")
    assert done.returncode == 1
    bad, dies = json.loads(done.stdout)
    assert not bad["ok"]
    assert list(bad["failed"]) == ["check_loss_prefers_true_pairs[flipped]"]
    assert "status 7" in dies["problem"]
    shown = environment.plugins("check", "acme-bad").stdout
    assert shown.startswith("acme-bad 1.0: 1 of 13 checks failed\n  check_loss_prefers_true_pairs[flipped]: ")


def unpack(environment, path):
    """Installed by other means than ours."""
    done = environment.run("-m", "pip", "install", "--no-deps", "-q", path)
    assert done.returncode == 0, done.stderr
