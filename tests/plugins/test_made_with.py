"""A space and the plugins that made it: missing, other versions, and what to type."""

from __future__ import annotations

import json
import sys

import modalign
import pytest
from modalign.plugin import loader, made_with
from modalign.space import Space, SpaceModality
from modalign.spec import Spec

PARTS = """
import torch
from torch import nn
from modalign import BadSample, Encoder, Features, Modality


class Toy(Modality):
    name = "toy"
    literal = True

    def read(self, value):
        if not isinstance(value, str) or not value:
            raise BadSample("not a word")
        return value

    def collate(self, items):
        return {"value": torch.tensor([[float(len(i)), float(ord(i[0]))] for i in items])}

    def example(self, n, seed=0):
        return [chr(97 + (i + seed) % 26) * (i + 1) for i in range(n)]


class Net(Encoder):
    modality = "toy"

    def __init__(self, width=WIDTH):
        super().__init__()
        self.width = width
        self.map = nn.Linear(2, width)

    def forward(self, batch):
        return Features.from_vectors(self.map(batch["value"]))
"""
DECLARE = """
from modalign import Component, hookimpl
@hookimpl
def register_modalities(): return [Component("toy", "acme_toy.parts:Toy", "s")]
@hookimpl
def register_encoders(): return [Component("NAME", "acme_toy.parts:Net", "s")]
"""


def forget():
    loader.reset()
    for name in [name for name in sys.modules if name.startswith("acme_toy")]:
        del sys.modules[name]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Puts a version of the plugin on the path in place of the one before it, or (None) removes it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(version, width=4, encoder="toy-net"):
        import shutil

        for old in site.iterdir():
            shutil.rmtree(old)
        if version is not None:
            info = site / f"acme_toy-{version}.dist-info"
            info.mkdir()
            head = f"Metadata-Version: 2.1\nName: acme-toy\nVersion: {version}\n"
            (info / "METADATA").write_text(f"{head}Requires-Dist: modalign>=0.1,<0.2\n")
            (info / "entry_points.txt").write_text("[modalign.plugins]\ntoy = acme_toy\n")
            package = site / "acme_toy"
            package.mkdir()
            (package / "__init__.py").write_text(DECLARE.replace("NAME", encoder))
            (package / "parts.py").write_text(PARTS.replace("WIDTH", str(width)))
        forget()

    yield put
    forget()


@pytest.fixture
def saved(toy, tmp_path):
    toy("0.1.3")
    space = Space(4, Spec("linear"))
    net = loader.load("encoders", "toy-net")()
    full = SpaceModality(Spec("acme-toy:toy"), Spec("acme-toy:toy-net"), 4, carried=True)
    space.add("toy", full, net, founder=True)
    space.save(tmp_path / "space")
    assert json.loads((tmp_path / "space" / "config.json").read_text())["plugins"]["acme-toy"] == "0.1.3"
    return tmp_path / "space"


def refused(saved, *words):
    with pytest.raises(modalign.UserError) as caught:
        modalign.load(saved)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_plugin_gives_the_command(toy, saved, tmp_path, monkeypatch):
    toy(None)
    refused(saved, "acme-toy (made with 0.1.3) is not installed",
            "modalign plugins install --unlisted 'acme-toy==0.1.3'")  # fmt: skip
    catalogue = tmp_path / "registry.yaml"
    catalogue.write_text(
        "schema: 1\nplugins:\n  acme-toy: {summary: s, trust: listed, requirement: acme-toy}\n"
    )
    monkeypatch.setenv("MODALIGN_REGISTRY", str(catalogue))
    refused(saved, "Run: modalign plugins install acme-toy")
    catalogue.write_text("{")
    refused(saved, "modalign plugins install --unlisted 'acme-toy==0.1.3'")


def test_a_patch_is_the_same_and_another_series_a_warning(toy, saved, caplog):
    first = modalign.load(saved).embed("toy", ["word"])
    toy("0.1.9")
    assert modalign.load(saved).embed("toy", ["word"]).equal(first)
    assert not caplog.records
    toy("0.2.0")
    assert modalign.load(saved).embed("toy", ["word"]).equal(first)
    (record,) = caplog.records
    assert "made with acme-toy 0.1.3, installed is 0.2.0" in record.getMessage()


def test_a_version_or_name_beyond_measure_stays_one_short_message(toy, saved, caplog):
    file = saved / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "plugins": {"acme-toy": "1" * 5000}}))
    modalign.load(saved)
    assert "installed is 0.1.3" in caplog.records[0].getMessage()
    entry = config["modalities"]["toy"]
    entry["modality"] = {"name": "toy" * 50_000}
    file.write_text(json.dumps(config))
    with pytest.raises(modalign.UserError, match="no modality named 'toytoy") as caught:
        modalign.load(saved)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("change", [{"width": 6}, {"encoder": "renamed"}])
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])  # a downgrade, an upgrade
def test_a_plugin_that_no_longer_fits_gives_the_command(toy, saved, change, version):
    toy(version, **change)
    refused(saved, f"made with acme-toy 0.1.3, installed is {version}",
            "modalign plugins install --unlisted 'acme-toy==0.1.3'")  # fmt: skip


def test_the_same_version_that_does_not_fit_is_damage(toy, saved):
    toy("0.1.3", width=6)
    refused(saved, "damaged")


def test_a_plugin_that_does_not_load(toy, saved, tmp_path, monkeypatch):
    (tmp_path / "site" / "acme_toy" / "__init__.py").write_text("raise RuntimeError('boom')")
    forget()
    refused(saved, "is not loaded: RuntimeError: boom", "Run: modalign plugins install")
    monkeypatch.setenv("MODALIGN_DISABLE", "acme-toy")
    forget()
    refused(saved, "disabled by MODALIGN_DISABLE")


@pytest.mark.parametrize(
    ("name", "version", "command"),
    [
        ("modalign", "0.1.0", "pip install 'modalign==0.1.0'"),
        ("modalign-text", None, "modalign plugins install modalign-text"),
        ("modalign-text", "0.0.1", "modalign plugins install 'modalign-text==0.0.1'"),
        ("acme-far", None, "modalign plugins install --unlisted acme-far"),
    ],
)
def test_what_to_type(name, version, command):
    assert made_with.install_command(name, version) == command
