"""modalign installed from its own wheel, far from any checkout: catalogue, scaffold, plugins from an index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import ROOT, SITE, Environment

pytestmark = pytest.mark.slow


@pytest.fixture
def installed(tmp_path: Path) -> Environment:
    """A fresh environment with the core's wheel in it; everything else that it needs lies outside."""
    outer = tmp_path / "outer"
    outer.mkdir()
    for entry in SITE.iterdir():
        if not entry.name.removeprefix("_editable_impl_").startswith(("modalign_", "modalign-", "modalign.")):
            (outer / entry.name).symlink_to(entry)
    environment = Environment(tmp_path, outer)
    for source in (ROOT, ROOT / "plugins" / "text"):
        built = environment.run("-m", "pip", "wheel", "--no-deps", "-q", "-w", environment.links, source)
        assert built.returncode == 0, built.stderr
    done = environment.run("-m", "pip", "install", "-q", "modalign")
    assert done.returncode == 0, done.stderr
    return environment


def test_the_core_s_wheel_alone(installed):
    before = installed.state()
    where = installed.run("-c", "import modalign; print(modalign.__file__)").stdout
    assert str(installed.site) in where
    found = json.loads(installed.plugins("search", "--json").stdout)
    assert {row["catalogue"] for row in found} == {str(installed.site / "modalign" / "registry.yaml")}
    assert "modalign-text" in {row["distribution"] for row in found}
    done = installed.plugins("install", "text", "--yes")
    assert done.returncode == 0, done.stderr
    assert "modalign-text from the package index" in done.stderr
    assert installed.plugins("uninstall", "text", "--yes").returncode == 0
    checkout = installed.plugins("install", "text", "--yes", "--registry", ROOT / "registry.yaml")
    assert checkout.returncode == 0, checkout.stderr
    assert f"source  {ROOT / 'plugins' / 'text'}" in checkout.stderr
    assert installed.plugins("uninstall", "text", "--yes").returncode == 0
    assert installed.state() == before
    done = installed.plugins("new", "lidar", "--kind", "loss")
    assert done.returncode == 0, done.stderr
    assert (installed.root / "modalign-lidar" / "modalign_lidar" / "loss.py").is_file()
    script = installed.python.parent / "modalign"
    assert script.is_file()


def test_the_core_and_pip_cannot_be_removed_or_replaced(installed):
    done = installed.plugins("uninstall", "modalign", "--yes")
    assert done.returncode == 2
    assert "no plugin" in done.stderr
    (core,) = installed.links.glob("modalign-*.whl")
    before = installed.files()
    for arguments in ((core,), ("--unlisted", "modalign"), ("--unlisted", "modalign==99")):
        done = installed.plugins("install", *arguments, "--yes")
        assert "Traceback" not in done.stderr
        assert installed.files() == before
