"""The core where no plugin is installed: everything it offers works."""

from __future__ import annotations

import json

ALONE = """
import torch
import modalign
from modalign.plugin import loader
from modalign.testing import checks

assert [p.distribution for p in loader.plugins()] == ["modalign"], loader.plugins()
for name in modalign.__all__:
    getattr(modalign, name)
ran = 0
for name, check in checks("modalign"):
    if name.startswith(("check_loss_reaches", "check_projection_shapes", "check_plugin_loads")):
        check()
        ran += 1
print(ran, "checks")
"""


def test_core_runs_with_no_plugins(environment):
    done = environment.run("-c", ALONE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 5
    rows = json.loads(environment.modalign("list", "--json").stdout)
    assert {row["full_name"].partition(":")[0] for row in rows} == {"modalign"}
    doctor = json.loads(environment.modalign("doctor", "--json").stdout)
    assert [plugin["distribution"] for plugin in doctor["plugins"]] == ["modalign"]
    assert doctor["registry"].endswith("plugins)")
