"""Installing and removing plugins in fresh environments: what works, what is refused."""

from __future__ import annotations

import json


def test_a_plugin_comes_and_goes(environment, wheel):
    before = environment.state()
    path = wheel("acme-one")
    done = environment.plugins("install", path, "--yes")
    assert done.returncode == 0, done.stderr
    assert "installed acme-one 1.0" in done.stdout
    rows = {row["distribution"]: row for row in json.loads(environment.plugins("list", "--json").stdout)}
    assert rows["acme-one"]["ok"]
    assert environment.state() != before
    done = environment.plugins("uninstall", "acme-one", "--yes")
    assert done.returncode == 0, done.stderr
    assert environment.state() == before
