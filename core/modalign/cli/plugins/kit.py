"""The contract kit over one plugin; the verdict is the last line on stdout, as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import redirect_stdout

from modalign.errors import UserError
from modalign.plugin.component import KINDS
from modalign.plugin.discover import one_line
from modalign.plugin.verdict import Verdict


def verdict(distribution: str) -> Verdict:
    """Run every check; whatever a plugin raises is a failed check."""
    from modalign.plugin import loader
    from modalign.testing import checks

    rows = {row.distribution: row for row in loader.plugins()}
    row = rows.get(distribution)
    if row is None or row.problem is not None:
        problem = row.problem if row else "it is not installed"
        return Verdict(distribution, row.version if row else "?", problem=problem)
    try:
        battery = checks(distribution)
    except (UserError, Exception, SystemExit) as error:
        return Verdict(distribution, row.version, problem=one_line(error))
    failed: dict[str, str] = {}
    for name, check in battery:
        try:
            check()
        except AssertionError as error:
            failed[name] = str(error) or "failed"
        except (Exception, SystemExit) as error:
            failed[name] = one_line(error)
    offers = {kind: [c.name for c in row.components.get(kind, [])] for kind in KINDS}
    built = {name.partition("[")[2].rstrip("]") for name, _ in battery}
    unbuilt = [name for names in offers.values() for name in names if name not in built]
    return Verdict(distribution, row.version, len(battery), failed, tuple(unbuilt), offers)


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        found = verdict(sys.argv[1])
    print("\n" + json.dumps(dataclasses.asdict(found)))
