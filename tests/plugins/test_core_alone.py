"""The core where no plugin is installed: everything it offers works."""

from __future__ import annotations

import json

ALONE = """
import torch
import modalign
from modalign.plugin import loader
from modalign.testing import loss, projection

assert [p.distribution for p in loader.plugins()] == ["modalign"], loader.plugins()
for name in modalign.__all__:
    getattr(modalign, name)
for offer in loader.components("losses"):
    made = loader.load("losses", offer.full_name)()
    loss.check_loss_reaches_every_modality(lambda: made)
for offer in loader.components("projections"):
    projection.check_projection_shapes(loader.load("projections", offer.full_name))
print(len(loader.components("losses")), "losses")
"""


def test_core_runs_with_no_plugins(environment):
    done = environment.run("-c", ALONE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 1
    rows = json.loads(environment.modalign("list", "--json").stdout)
    assert {row["full_name"].partition(":")[0] for row in rows} == {"modalign"}
    doctor = json.loads(environment.modalign("doctor", "--json").stdout)
    assert [plugin["distribution"] for plugin in doctor["plugins"]] == ["modalign"]
    assert doctor["registry"].endswith("plugins)")
